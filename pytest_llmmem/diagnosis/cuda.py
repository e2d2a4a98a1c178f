"""GPU memory that was refused: torch's message says why, in numbers."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from pytest_llmmem.core.record_parts import VramRefusedRecord
from pytest_llmmem.core.sizes import UNITS, format_size
from pytest_llmmem.diagnosis.facts import Facts
from pytest_llmmem.diagnosis.rule import Rule, When, Words

_SIZE: Final = r"(\d+(?:\.\d+)?) (bytes|[KMG]iB)"
_DEVICE: Final = re.compile(r"(?:GPU|on device) (\d+)")
_SAYS: Final = {
    "asked_bytes": rf"Tried to allocate {_SIZE}|Requested\s*: {_SIZE}",
    "total_bytes": rf"total capaci?ty of {_SIZE}|{_SIZE} total capacity|Device limit\s*: {_SIZE}",
    "free_bytes": rf"of which {_SIZE} is free|{_SIZE} free;|Free \(according to CUDA\): {_SIZE}",
    "process_bytes": rf"this process has {_SIZE} memory in use",
    "allocated_bytes": rf"{_SIZE} is allocated by PyTorch|{_SIZE} already allocated|Currently allocated\s*: {_SIZE}",
    "unallocated_bytes": rf"{_SIZE} is reserved by PyTorch but unallocated",
    "reserved_bytes": rf"{_SIZE} reserved in total by PyTorch",
    "allowed_bytes": rf"{_SIZE} allowed;",
}
"""Parts of the message since torch 1.4. Torch 2.1 writes "capacty"; ``backend:cudaMallocAsync`` writes a list with colons.

The shared allocator of torch's newer backends begins it with "Out of memory"; some versions do not print the allowed size.
"""
_OUT_OF_MEMORY: Final = re.compile(
    r"out of memory\. Tried to allocate|\(out of memory\)|CUDA error: out of memory|would exceed allowed memory",
    re.IGNORECASE,
)
"""Messages of torch's allocators, and of CUDA itself, which gives no numbers: for example, a context on a full GPU."""
_TYPES: Final = frozenset({"OutOfMemoryError", "AcceleratorError", "RuntimeError"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaOutOfMemory:
    """The numbers of a ``torch.OutOfMemoryError``, as exact as it prints them; ``None`` where it does not say."""

    device: int | None
    asked_bytes: int | None
    total_bytes: int | None
    """Total memory of the device."""
    free_bytes: int | None
    process_bytes: int | None
    """Memory of this process on the device, the driver's part included."""
    allocated_bytes: int | None
    """Held by tensors."""
    unallocated_bytes: int | None
    """Reserved by torch's allocator and held by no tensor."""
    allowed_bytes: int | None = None
    """The most that the allocator may reserve (``set_per_process_memory_fraction``); ``None`` when it may take all."""

    @property
    def expandable_segments_would_help(self) -> bool:
        """Whether what was asked for was there: free, or reserved already, in pieces that can be given back and put together."""
        if self.asked_bytes is None or not self.unallocated_bytes:
            return False
        room_bytes = self.free_bytes or 0
        if self._allowed_room_bytes is not None:
            room_bytes = min(room_bytes, self._allowed_room_bytes)
        return room_bytes + self.unallocated_bytes >= self.asked_bytes

    @property
    def is_capped(self) -> bool:
        """Whether it was the allocator's own limit that was in the way."""
        if self.asked_bytes is None or self._allowed_room_bytes is None:
            return False
        return self.asked_bytes > self._allowed_room_bytes

    @property
    def _allowed_room_bytes(self) -> int | None:
        """Bytes between the allocator's own limit and its reserve."""
        if self.allowed_bytes is None or self.allocated_bytes is None or self.unallocated_bytes is None:
            return None
        return self.allowed_bytes - self.allocated_bytes - self.unallocated_bytes

    @property
    def others_bytes(self) -> int | None:
        """Memory of other processes on the device."""
        if self.total_bytes is None or self.free_bytes is None or self.process_bytes is None:
            return None
        return max(0, self.total_bytes - self.free_bytes - self.process_bytes)

    @classmethod
    def parse(cls, text: str) -> "CudaOutOfMemory | None":
        """The numbers of a message; ``None`` when it is not of this kind."""
        if not _OUT_OF_MEMORY.search(text):
            return None
        found = {name: _size(pattern, text) for name, pattern in _SAYS.items()}
        reserved, allocated, unallocated = (found[f"{name}_bytes"] for name in ("reserved", "allocated", "unallocated"))
        if unallocated is None and reserved is not None and allocated is not None:
            unallocated = max(0, reserved - allocated)
        device = _DEVICE.search(text)
        return cls(
            device=int(device[1]) if device else None,
            asked_bytes=found["asked_bytes"],
            total_bytes=found["total_bytes"],
            free_bytes=found["free_bytes"],
            process_bytes=found["process_bytes"],
            allocated_bytes=allocated,
            unallocated_bytes=unallocated,
            allowed_bytes=found["allowed_bytes"],
        )

    @classmethod
    def of_error(cls, error_type: str, text: str) -> "CudaOutOfMemory | None":
        """The numbers of an exception; ``None`` when it is not of this kind."""
        return cls.parse(text) if error_type.rpartition(".")[2] in _TYPES else None

    def record(self) -> VramRefusedRecord:
        """The record of the refusal."""
        return VramRefusedRecord(
            device=None if self.device is None else f"GPU {self.device}",
            asked_bytes=self.asked_bytes,
            free_bytes=self.free_bytes,
            total_bytes=self.total_bytes,
            reserved_unused_bytes=self.unallocated_bytes,
            allowed_bytes=self.allowed_bytes,
            expandable_segments_would_help=self.expandable_segments_would_help,
        )

    def sentence(self) -> str:
        """All that its reader wants to know, in one line."""
        words = _words(self)
        if self.asked_bytes is None:
            return f"{words['device']} had no memory left, and CUDA says no more"
        capped = f" ({words['allowed']} allowed)" if self.is_capped else ""
        would = "would" if self.expandable_segments_would_help else "would not"
        return (
            f"{words['device']} refused {words['asked']}: {words['free']} of {words['total']} were free{capped}, "
            f"{words['unallocated']} were reserved and unused; expandable_segments:True {would} have helped"
        )


def _size(pattern: str, text: str) -> int | None:
    match = re.search(pattern, text)
    if match is None:
        return None
    number, unit = (group for group in match.groups() if group)
    return int(Decimal(number) * UNITS["B" if unit == "bytes" else unit])


def _out_of_memory(facts: Facts) -> CudaOutOfMemory | None:
    return CudaOutOfMemory.of_error(facts.error_type or "", facts.error_text)


def _words(found: CudaOutOfMemory) -> Words:
    device = "the GPU" if found.device is None else f"GPU {found.device}"
    sizes = {
        "asked": found.asked_bytes,
        "total": found.total_bytes,
        "free": found.free_bytes,
        "allocated": found.allocated_bytes,
        "unallocated": found.unallocated_bytes,
        "others": found.others_bytes,
        "allowed": found.allowed_bytes,
    }
    return {"device": device} | {name: _in_words(size) for name, size in sizes.items()}


def _in_words(size_bytes: int | None) -> str:
    """Format a size in the units of the message that is being explained."""
    if size_bytes is None:
        return "an unknown part"
    return format_size(size_bytes, "GiB" if size_bytes >= UNITS["GiB"] else "MiB")


def _when(holds: Callable[[CudaOutOfMemory], bool]) -> When:
    def when(facts: Facts) -> Words | None:
        found = _out_of_memory(facts)
        return _words(found) if found and holds(found) else None

    return when


RULES: Final = (
    Rule(
        id="cuda-none-left",
        when=_when(lambda found: found.asked_bytes is None),
        happened="{device} had no memory left{at}, and CUDA does not say how much was asked for.",
        why="It is CUDA's own error, not one of torch's allocator: a context, which takes some hundred MB, or a library.",
        next=(
            "See who holds the card: nvidia-smi. Workers of pytest-xdist on one GPU have a context each.",
            "Give the tests budgets of max_vram: those that do not fit on the card together then wait for each other.",
        ),
    ),
    Rule(
        id="cuda-fragmented",
        when=_when(lambda found: found.expandable_segments_would_help),
        happened="{device} refused {asked}{at}, while torch held {unallocated} that no tensor used.",
        why="What torch has reserved is in pieces, and none of them, nor what is free beside them, is large enough.",
        next=(
            "Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True before torch is imported: segments then grow instead.",
            "Or allocate the large tensors first, before small ones divide what is free.",
        ),
    ),
    Rule(
        id="cuda-too-large",
        when=_when(lambda found: found.total_bytes is not None and (found.asked_bytes or 0) > found.total_bytes),
        happened="{asked} were asked for at once{at}, and all of {device} is {total}.",
        why="No freeing makes room for that: one tensor is larger than the device.",
        next=("Make it smaller: a shorter sequence, a smaller batch, a smaller dtype.",),
    ),
    Rule(
        id="cuda-capped",
        when=_when(lambda found: found.is_capped),
        happened="{device} refused {asked}{at}: torch may reserve {allowed} of it here, and tensors hold {allocated}.",
        why="The limit is max_vram's with enforce='cap', or one that set_per_process_memory_fraction has set.",
        next=(
            "Load fewer bytes: dtype='auto' keeps the checkpoint's dtype; --llm-load=int8 or nf4 quantizes.",
            "Or raise the limit: without enforce='cap' the report says how much the test needs.",
        ),
    ),
    Rule(
        id="cuda-shared",
        when=_when(lambda found: (found.others_bytes or 0) >= (found.asked_bytes or 0)),
        happened="{device} refused {asked}{at}: of {total}, {free} were free.",
        why="Other processes hold {others} of it. Without them this would have fitted.",
        next=(
            "See who: nvidia-smi. Workers of pytest-xdist on one GPU are such processes too.",
            "Or leave them room: max_memory={{0: '...'}} with device_map='auto'.",
        ),
    ),
    Rule(
        id="cuda-full",
        when=_when(lambda _: True),
        happened="{device} refused {asked}{at}: of {total}, {free} were free.",
        why="Tensors hold {allocated}. Reserved and unused are {unallocated}: expandable_segments would not have helped.",
        next=(
            "Load fewer bytes: dtype='auto' keeps the checkpoint's dtype; --llm-load=int8 or nf4 quantizes.",
            "Or leave a part elsewhere: device_map='auto', within max_memory.",
        ),
    ),
)
