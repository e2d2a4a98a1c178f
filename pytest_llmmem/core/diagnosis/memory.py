"""Host memory and disk that were refused, with an exception."""

import re
from typing import Final

from pytest_llmmem.core.diagnosis.rows import Row, Words, either, raised
from pytest_llmmem.core.diagnosis.symptoms import Symptom
from pytest_llmmem.core.sizes import format_size

_ALLOCATION: Final = re.compile(r"DefaultCPUAllocator: .*you tried to allocate (?P<asked>\d+) bytes")
_MAPPING: Final = re.compile(
    r"unable to mmap (?P<asked>\d+) bytes from file <(?:[^>]*[/\\])?(?P<file>[^>]+)>.*annot allocate"
)


def _allocation(symptom: Symptom) -> Words | None:
    match = _ALLOCATION.search(symptom.error_text)
    if symptom.error_name != "RuntimeError" or match is None:
        return None
    free = symptom.available_bytes
    known = f" {format_size(free)} were free before the test." if free is not None else ""
    return {"asked": format_size(int(match["asked"])), "free": known}


def _mapping(symptom: Symptom) -> Words | None:
    match = _MAPPING.search(symptom.error_text)
    if symptom.error_name != "RuntimeError" or match is None:
        return None
    return {"what": f"{match['file']} ({format_size(int(match['asked']))})"}


def _mapping_without_a_name(symptom: Symptom) -> Words | None:
    refused = raised("MemoryError OSError SafetensorError", r"Cannot allocate memory \(os error 12\)")(symptom)
    return None if refused is None else {"what": "a shard"}


ROWS: Final = (
    Row(
        id="allocation-refused",
        when=_allocation,
        happened="{asked} of host memory were asked for at once, and refused{at}.",
        why="RAM and swap cannot give so much, or ulimit -v, ulimit -d or vm.overcommit_memory=2 forbid it.{free}",
        next=(
            "Load fewer bytes: dtype='auto' keeps the checkpoint's dtype; --llm-load=int8 or nf4 quantises.",
            "Or leave a part on disk: --llm-load=offload.",
            "With max_ram(..., enforce='rlimit') this is the budget at work.",
        ),
    ),
    Row(
        id="mapping-refused",
        when=either(_mapping, _mapping_without_a_name),
        happened="Mapping {what} was refused.",
        why="A shard is mapped privately: all of it counts against ulimit -v and -d and vm.overcommit_memory=2, read or not.",
        next=(
            "Lift those limits, and limit the container or the cgroup instead: they count what is used.",
            "Or read instead of mapping: from_pretrained(..., disable_mmap=True), transformers 5.6 and later.",
        ),
    ),
    Row(
        id="disk-full",
        when=either(
            raised("OSError SafetensorError RuntimeError", r"No space left on device|Disk quota exceeded"),
            raised("OSError", r"Not enough free space to write|not enough space on the disk"),
            raised("RuntimeError", r"inline_container\.cc:\d+\] \. unexpected pos"),
        ),
        happened="There was no room on the disk for what was to be written{at}.",
        why="Weights that are saved, or offloaded from .bin files, take their full size again.",
        next=(
            "Make room, or write elsewhere: offload_folder=..., HF_HOME, TMPDIR.",
            "Or offload from safetensors: from_pretrained reads most models where they lie and writes nothing.",
        ),
    ),
)
