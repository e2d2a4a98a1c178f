"""Workers that died during a load, recognized by the signal, the stack and the kernel's evidence."""

from typing import Final

from pytest_llmmem.core.sizes import format_beside
from pytest_llmmem.diagnosis.facts import Facts
from pytest_llmmem.diagnosis.rule import Rule, When, Words, both, died

_READERS: Final = (
    "safetensors/torch.py load",
    "safetensors/numpy.py load",
    "torch/storage.py __getitem__",
    "torch/serialization.py load",
    "transformers/modeling_utils.py from_pretrained",
    "transformers/modeling_utils.py load_",
    "transformers/core_model_loading.py",
    "accelerate/utils/modeling.py",
)
"""Frames on the stack while weights are read."""


def _reading(facts: Facts) -> Words | None:
    return {} if facts.place or any(facts.was_in(reader) for reader in _READERS) else None


def _inside(function: str) -> When:
    return lambda facts: {} if facts.was_in(function) else None


def _truncated(facts: Facts) -> Words | None:
    truncated = facts.checkpoint.truncated if facts.checkpoint else ()
    return {"truncated": ", ".join(truncated)} if truncated else None


def _out_of_memory(facts: Facts) -> Words | None:
    ending = facts.ending
    return {"note": ending.note} if ending.kind == "out_of_memory" else None


def _weights_do_not_fit(facts: Facts) -> Words | None:
    available = facts.available_bytes
    if facts.checkpoint is None or available is None or facts.checkpoint.weights_bytes <= available:
        return None
    there, weights, _ = format_beside(available, facts.checkpoint.weights_bytes)
    return {"weights": weights, "available": there}


def _unproved(facts: Facts) -> Words | None:
    return {} if "neither shown nor ruled out" in facts.ending.note else None


RULES: Final = (
    Rule(
        id="weights-exceed-memory",
        when=both(_out_of_memory, _weights_do_not_fit),
        happened="Killed because memory ran out{at}: {note}.",
        why="The weights alone are {weights}, and {available} were free before the test.",
        next=(
            "Leave a part on disk or on another device: --llm-load=auto or offload.",
            "Or load fewer bytes: --llm-load=int8 or nf4.",
        ),
    ),
    Rule(
        id="out-of-memory",
        when=_out_of_memory,
        happened="Killed because memory ran out{at}: {note}.",
        why="The machine, or the container, ran out of memory. The kernel can drop weights that are mapped and only read; "
        "copies of them it cannot.",
        next=(
            "See where it grows: --llm-max-ram=LIMIT --llm-on-breach=stop ends the test earlier, with a stack.",
            "Hold less at once: --llm-load=sharded, the checkpoint's own dtype, int8 or nf4.",
        ),
    ),
    Rule(
        id="killed",
        when=both(died("SIGKILL"), _unproved),
        happened="Killed (SIGKILL){at}, and not by the plugin.",
        why="The kernel's OOM killer ends processes so, and whoever runs the container. Here its counters cannot be read.",
        next=(
            "Ask the kernel: dmesg | grep -i 'out of memory', or the container's own events (OOMKilled).",
            "Or let the plugin stop it first, with a stack: --llm-max-ram=LIMIT --llm-on-breach=stop.",
        ),
    ),
    Rule(
        id="map-truncated",
        when=both(died("SIGBUS", "IN_PAGE_ERROR"), _truncated),
        happened="The worker died of {signal}{at}: it read a mapped file beyond its end.",
        why="{truncated} became shorter after it was mapped; a load refuses a file that is too short from the start.",
        next=(
            "Fetch it again, and let nothing rewrite a checkpoint that is in use.",
            "A new version goes to another name and is renamed: maps of the old file then stay whole.",
        ),
    ),
    Rule(
        id="offload-disk-full",
        when=both(died("SIGBUS", "IN_PAGE_ERROR"), _inside("accelerate/utils/offload.py offload_weight")),
        happened="The worker died of {signal}{at} while it wrote offloaded weights.",
        why="accelerate writes them through a map. Where the disk has no block for a page, that is a signal and no error.",
        next=(
            "Make room where the offload folder is, or name another.",
            "Or offload from safetensors with from_pretrained, which reads most models where they lie.",
        ),
    ),
    Rule(
        id="map-unreadable",
        when=both(died("SIGBUS", "IN_PAGE_ERROR"), _reading),
        happened="The worker died of {signal}{at}: a page of a mapped file could not be had.",
        why="The file became shorter meanwhile, or what it lies on failed: NFS, Lustre, FUSE.",
        next=(
            "Copy the checkpoint to a local disk and load it from there.",
            "Or read instead of mapping: from_pretrained(..., disable_mmap=True), transformers 5.6 and later.",
        ),
    ),
    Rule(
        id="access-violation",
        when=both(died("ACCESS_VIOLATION", "COMMITMENT_LIMIT", "NO_MEMORY"), _reading),
        happened="The worker died of {signal}{at} while it read weights.",
        why="Known on Windows before transformers 5.17: every shard is mapped copy-on-write and counts in full against the "
        "commit limit, and beyond it a page cannot be had.",
        next=(
            "Upgrade: pip install -U 'transformers>=5.17', which reads the shards instead.",
            "Or enlarge the page file by the size of the checkpoint.",
        ),
    ),
    Rule(
        id="segfault-while-loading",
        when=both(died("SIGSEGV"), _reading),
        happened="Native code crashed with SIGSEGV{at} while weights were read.",
        why="It used memory that is not its own. The innermost frames of the stack name the library.",
        next=(
            "Rule out the file: fetch it again, or load a synthetic one of the same shape, --llm-model=synthetic:FOLDER.",
            "Rule out the versions: upgrade torch and safetensors together.",
        ),
    ),
)
