"""What torch's caching allocator says of each device. torch is looked up, never imported: who has not, uses none of it.

``torch.cuda`` (NVIDIA, and AMD's ROCm) and ``torch.xpu`` (Intel) have the same functions. The numbers are exact for what
torch allocates; the driver's context and other libraries are not in them.
"""

import sys
from typing import Any, Final

from pytest_llmmem.core.vram import VramReading

KINDS: Final = ("cuda", "xpu")
"""Kinds of devices, each the name of a module of torch and of its devices."""


def read() -> tuple[VramReading, ...]:
    """What this process holds on each device that it uses, and its peaks since the last call, which begin anew.

    Empty before anything has used a device: asking earlier would create the driver's context.
    """
    torch = sys.modules.get("torch")
    for kind in KINDS:
        backend = getattr(torch, kind, None)
        if backend is not None and backend.is_initialized():
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
