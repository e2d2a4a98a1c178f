"""What torch's caching allocator says of each device, and the most that it may take.

To be read, torch is looked up and never imported: who has not imported it uses none of it.

``torch.cuda`` (NVIDIA, and AMD's ROCm) and ``torch.xpu`` (Intel) have the same functions. The numbers are exact for what
torch allocates; the driver's context and other libraries are not in them.
"""

import sys
from typing import Any, Final

from pytest_llmmem.core.vram import VramReading

KINDS: Final = ("cuda", "xpu")
"""Kinds of devices, each the name of a module of torch and of its devices."""
_HISTORY: Final = 100_000
"""Entries that torch keeps, the latest ones; each is some kB, its stack included."""


def read() -> tuple[VramReading, ...]:
    """What this process holds on each device that it uses, and its peaks since the last call, which begin anew.

    Empty before anything has used a device: asking earlier would create the driver's context.
    """
    torch = sys.modules.get("torch")
    for kind in KINDS:
        backend: Any = getattr(torch, kind, None)
        # a test may have put a mock there, which has no such function, or one that answers with another mock
        if getattr(backend, "is_initialized", bool)() is True:
            return tuple(reading for index in range(backend.device_count()) if (reading := _read(backend, kind, index)))
    return ()


def _read(backend: Any, kind: str, index: int) -> VramReading | None:
    """One device; ``None`` when nothing was allocated there."""
    stats = backend.memory_stats(index)
    if not stats.get("reserved_bytes.all.peak"):
        return None
    backend.reset_peak_memory_stats(index)
    return VramReading(
        device=f"{kind}:{index}",
        allocated_bytes=stats["allocated_bytes.all.current"],
        reserved_bytes=stats["reserved_bytes.all.current"],
        peak_allocated_bytes=stats["allocated_bytes.all.peak"],
        peak_reserved_bytes=stats["reserved_bytes.all.peak"],
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

    torch.cuda.memory._record_memory_history(max_entries=_HISTORY)  # noqa: SLF001 -- so torch documents it


def write_history(path: str) -> None:
    """Write what torch remembers, as pytorch.org/memory_viz reads it, and forget it. Raises ``OSError``."""
    import torch

    torch.cuda.memory._dump_snapshot(path)  # noqa: SLF001 -- so torch documents it
    torch.cuda.memory._record_memory_history(None)  # noqa: SLF001 -- so torch documents it


def _backend(torch: Any, device: str) -> tuple[Any, int]:
    kind, _, index = device.partition(":")
    return getattr(torch, kind), int(index)
