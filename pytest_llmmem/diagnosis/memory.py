"""Host memory and disk that were refused, with an exception."""

import re
from typing import Final

from pytest_llmmem.core.sizes import UNITS, format_size
from pytest_llmmem.diagnosis.facts import Facts
from pytest_llmmem.diagnosis.rule import Rule, Words, both, died, either, raised

_ALLOCATION: Final = re.compile(r"DefaultCPUAllocator: .*you tried to allocate (?P<asked>\d+) bytes")
_MAPPING: Final = re.compile(
    r"unable to mmap (?P<asked>\d+) bytes from file <(?!/torch_\d)(?:[^>]*[/\\])?(?P<file>[^>]+)>.*annot allocate"
)
"""A name such as ``/torch_4711_1`` is that of shared memory, and no file's."""


def _allocation(facts: Facts) -> Words | None:
    match = _ALLOCATION.search(facts.error_text)
    if facts.error_name != "RuntimeError" or match is None:
        return None
    free = facts.available_bytes
    known = f" {format_size(free)} were free before the test." if free is not None else ""
    return {"asked": format_size(int(match["asked"])), "free": known}


def _mapping(facts: Facts) -> Words | None:
    match = _MAPPING.search(facts.error_text)
    if facts.error_name != "RuntimeError" or match is None:
        return None
    return {"what": f"{match['file']} ({format_size(int(match['asked']))})"}


_SHARING: Final = (
    "torch/multiprocessing/reductions.py",
    "torch/storage.py share_memory_",
    "torch/storage.py _share_memory",
    "torch/storage.py _new_shared",
    "multiprocessing/shared_memory.py",
    "multiprocessing/heap.py",
)
"""Code that shares memory with another process."""
_FULL_BYTES: Final = 2**20
"""A ``/dev/shm`` with less free space than this is full."""


def _dies_sharing(facts: Facts) -> Words | None:
    """A page of shared memory that cannot be had is a signal: there is no call that could return an error."""
    left = facts.shm_free_bytes
    full = left is not None and left < _FULL_BYTES
    sharing = any(facts.was_in(function) for function in _SHARING)
    return died("SIGBUS")(facts) if full or sharing else None


def _shm(facts: Facts) -> Words:
    size = facts.shm_total_bytes
    if size is None:
        return {"size": ""}
    return {"size": f" It has {format_size(size, 'GiB' if size >= UNITS['GiB'] else 'MiB')}."}


def _mapping_without_a_name(facts: Facts) -> Words | None:
    refused = raised("MemoryError OSError SafetensorError", r"Cannot allocate memory \(os error 12\)")(facts)
    return None if refused is None else {"what": "a shard"}


RULES: Final = (
    Rule(
        id="allocation-refused",
        when=_allocation,
        happened="{asked} of host memory were asked for at once, and refused{at}.",
        why="RAM and swap cannot give so much, or ulimit -v, ulimit -d or vm.overcommit_memory=2 forbid it.{free}",
        next=(
            "Load fewer bytes: dtype='auto' keeps the checkpoint's dtype; --llm-load=int8 or nf4 quantizes.",
            "Or leave a part on disk: --llm-load=offload.",
            "With max_ram(..., enforce='rlimit') this is the budget at work.",
        ),
    ),
    Rule(
        id="mapping-refused",
        when=either(_mapping, _mapping_without_a_name),
        happened="Mapping {what} was refused.",
        why="A shard is mapped privately: all of it counts against ulimit -v and -d and vm.overcommit_memory=2, read or not.",
        next=(
            "Lift those limits, and limit the container or the cgroup instead: they count what is used.",
            "Or read instead of mapping: from_pretrained(..., disable_mmap=True), transformers 5.6 and later.",
        ),
    ),
    Rule(
        id="shared-memory-full",
        when=both(
            either(
                raised(
                    "RuntimeError DistBackendError",
                    r"</torch_\d+[^>]*>: No space left|workers are out of shared memory",
                ),
                raised("OSError RuntimeError DistBackendError", r"/dev/shm/.*No space left|No space left.*/dev/shm/"),
                raised("OSError", r"No space left on device", inside="multiprocessing/synchronize.py"),
                raised("OSError", r"No space left on device", inside="multiprocessing/shared_memory.py"),
                _dies_sharing,
            ),
            _shm,
        ),
        happened="/dev/shm is full: there was no room for memory that processes share{at}.{size}",
        why="Tensors pass through it between processes: DataLoader workers, torch.multiprocessing, NCCL. A container has 64 MiB "
        "of it unless told otherwise.",
        next=(
            "Enlarge it: docker run --shm-size=8g or --ipc=host; in Kubernetes an emptyDir with medium: Memory, mounted there.",
            "Or use less: fewer DataLoader workers (num_workers=0 uses none), smaller batches, a smaller prefetch_factor.",
            "Both of torch's sharing strategies use it. Look for what was left: ls -l /dev/shm.",
        ),
    ),
    Rule(
        id="disk-full",
        when=either(
            raised("OSError SafetensorError RuntimeError", r"No space left on device|Disk quota exceeded"),
            raised("OSError", r"Not enough free space to write|not enough space on the disk"),
            raised("RuntimeError", r"inline_container\.cc:\d+\] \. unexpected pos"),
        ),
        happened="There was no room on the disk for what was to be written{at}.",
        why="Checkpoints that are saved, weights that are offloaded from .bin files, and caches take their full size.",
        next=(
            "Make room, or write elsewhere: offload_folder=..., HF_HOME, TMPDIR.",
            "Weights that are offloaded from safetensors are not written: from_pretrained reads most models where they lie.",
        ),
    ),
)
