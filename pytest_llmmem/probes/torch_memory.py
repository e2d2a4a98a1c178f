"""Counters and the limit of torch's caching allocator, for each device.

To be read, torch is looked up and never imported: who has not imported it uses none of it.

``torch.cuda`` (NVIDIA, and AMD's ROCm) and ``torch.xpu`` (Intel) have the same functions. The numbers are exact for what
torch allocates; the driver's context and other libraries are not in them.
"""

import functools
import sys
from types import FunctionType, MethodType
from typing import Any, Final, Self

from pytest_llmmem.core.vram import VramReading

KINDS: Final = ("cuda", "xpu")
"""Kinds of devices, each the name of a module of torch and of its devices."""
_RESET: Final = "reset_peak_memory_stats"
_PIECES: Final = "inactive_split_bytes.all.peak"
_HISTORY: Final = 100_000
"""Entries that torch keeps, the latest ones; each is some kB, its stack included."""


def read() -> tuple[VramReading, ...]:
    """Memory of this process on each device that it uses, and its peaks since the last call; resets the peaks.

    Empty before anything has used a device: asking earlier would create the driver's context.
    """
    torch = sys.modules.get("torch")
    for kind in KINDS:
        backend: Any = getattr(torch, kind, None)
        peaks = _Peaks.of(backend, kind)
        # a test may have put a mock there, which has no such function, or one that answers with another mock
        if getattr(backend, "is_initialized", bool)() is True:
            return tuple(reading for index in range(backend.device_count()) if (reading := peaks.read(index)))
    return ()


class _Peaks:
    """Stands in for torch's ``reset_peak_memory_stats``: what a test resets is kept for the next boundary."""

    def __init__(self, backend: Any, kind: str, reset: Any) -> None:
        functools.update_wrapper(self, reset)
        self._backend, self._kind, self._reset = backend, kind, reset
        self._kept: dict[int, VramReading] = {}

    @classmethod
    def of(cls, backend: Any, kind: str) -> Self:
        """Replace torch's reset function from now on, unless a test has put a mock there."""
        reset = getattr(backend, _RESET, None)
        if isinstance(reset, cls):
            return reset
        peaks = cls(backend, kind, reset)
        for module in (backend, getattr(backend, "memory", None)):
            if isinstance(reset, (FunctionType, MethodType)) and getattr(module, _RESET, None) == reset:
                setattr(module, _RESET, peaks)
        return peaks

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self._backend.is_initialized():
            for index in range(self._backend.device_count()):
                if reading := self._read(index):
                    self._kept[index] = reading
        return self._reset(*arguments, **named)

    def read(self, index: int) -> VramReading | None:
        """Read one device and reset its peaks; ``None`` when nothing was allocated there."""
        reading = self._read(index)
        self._kept.pop(index, None)
        if reading is not None:
            self._reset(index)
        return reading

    def _read(self, index: int) -> VramReading | None:
        stats = self._backend.memory_stats(index)
        kept = self._kept.get(index)
        if not kept and not stats.get("reserved_bytes.all.peak"):
            return None
        return VramReading(
            device=f"{self._kind}:{index}",
            allocated_bytes=stats["allocated_bytes.all.current"],
            reserved_bytes=stats["reserved_bytes.all.current"],
            peak_allocated_bytes=max(stats["allocated_bytes.all.peak"], kept.peak_allocated_bytes if kept else 0),
            peak_reserved_bytes=max(stats["reserved_bytes.all.peak"], kept.peak_reserved_bytes if kept else 0),
            peak_fragmented_bytes=max(stats.get(_PIECES, 0), kept.peak_fragmented_bytes if kept else 0),
        )


def read_pinned() -> int | None:
    """Page-locked memory of the host that torch held at most since the last call, for transfers to and from a GPU, in bytes.

    ``None`` where no GPU of NVIDIA or AMD is in use, and where an older torch does not count it.
    """
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    if getattr(cuda, "is_initialized", bool)() is not True or not hasattr(cuda, "host_memory_stats"):
        return None
    peak_bytes: int | None = cuda.host_memory_stats().get("allocated_bytes.peak")
    cuda.reset_peak_host_memory_stats()
    return peak_bytes


def cap(device: str, room_bytes: int) -> None:
    """Let torch refuse what goes beyond so many bytes more than it has reserved on a device now.

    The line that asks for them raises ``torch.OutOfMemoryError``. This imports torch, and creates the driver's context.
    """
    import torch

    backend, index = _backend(torch, device)
    reserved_bytes = backend.memory_stats(index).get("reserved_bytes.all.current", 0)
    share = (reserved_bytes + room_bytes) / backend.get_device_properties(index).total_memory
    backend.set_per_process_memory_fraction(min(1.0, share), index)


def uncap(device: str) -> None:
    """Let torch reserve all of a device again."""
    import torch

    backend, index = _backend(torch, device)
    backend.set_per_process_memory_fraction(1.0, index)


def record_history() -> None:
    """Let torch remember every allocation on NVIDIA's and AMD's devices from now on, and where in the code it was made.

    This imports torch, and creates the driver's context.
    """
    import torch

    # stacks of C++ take minutes to write
    torch.cuda.memory._record_memory_history(max_entries=_HISTORY, stacks="python")  # noqa: SLF001 -- so torch documents it


def write_history(path: str) -> None:
    """Write what torch remembers, as pytorch.org/memory_viz reads it, and forget it. Raises ``OSError``."""
    import torch

    torch.cuda.memory._dump_snapshot(path)  # noqa: SLF001 -- so torch documents it
    torch.cuda.memory._record_memory_history(None)  # noqa: SLF001 -- so torch documents it


def _backend(torch: Any, device: str) -> tuple[Any, int]:
    kind, _, index = device.partition(":")
    return getattr(torch, kind), int(index)
