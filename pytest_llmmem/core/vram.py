"""GPU memory by the allocator's own account: what a stretch of a test had at most, device by device."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.records import VramRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class VramReading:
    """One device's allocator at a boundary, in bytes; the peaks are those since the boundary before."""

    device: str
    """As torch names it: ``"cuda:0"``."""
    allocated_bytes: int
    """Held by tensors."""
    reserved_bytes: int
    """Held by the allocator, for tensors that are there or may come."""
    peak_allocated_bytes: int
    peak_reserved_bytes: int


@dataclass(slots=True)
class VramWindow:
    """The peaks of one stretch, above what the process held on each device when it began."""

    _base: Mapping[str, VramReading]
    _peaks: dict[str, VramRecord] = field(default_factory=dict)

    @classmethod
    def opened(cls, readings: Iterable[VramReading]) -> Self:
        """A stretch that begins with these readings."""
        return cls({reading.device: reading for reading in readings})

    def add(self, readings: Iterable[VramReading]) -> None:
        """Take in what a boundary within the stretch, or at its end, has read."""
        for reading in readings:
            base, before = self._base.get(reading.device), self._peaks.get(reading.device)
            allocated_bytes = reading.peak_allocated_bytes - (base.allocated_bytes if base else 0)
            reserved_bytes = reading.peak_reserved_bytes - (base.reserved_bytes if base else 0)
            self._peaks[reading.device] = VramRecord(
                device=reading.device,
                peak_allocated_bytes=max(before.peak_allocated_bytes if before else 0, allocated_bytes),
                peak_reserved_bytes=max(before.peak_reserved_bytes if before else 0, reserved_bytes),
                baseline_bytes=base.reserved_bytes if base else 0,
            )

    def used_bytes(self, budget: Budget) -> int:
        """What a budget of one device compares: growth, or all that the process held for a share of the device."""
        peak = self._peaks.get(budget.device or "")
        if peak is None:
            return 0
        base = self._base.get(peak.device) if budget.limit.is_share else None
        if budget.count == "allocated":
            return peak.peak_allocated_bytes + (base.allocated_bytes if base else 0)
        return peak.peak_reserved_bytes + (base.reserved_bytes if base else 0)

    @property
    def peaks(self) -> tuple[VramRecord, ...]:
        """One for each device that was used, in the order of their names."""
        return tuple(self._peaks[device] for device in sorted(self._peaks))
