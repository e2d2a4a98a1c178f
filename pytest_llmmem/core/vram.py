"""GPU memory by the allocator's account, and by the driver's: what a stretch of a test had at most, device by device."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.record_parts import DeviceMethod, VramRecord


def parse_device(value: object) -> str:
    """A device as torch names it, with its number. Raises ``ValueError`` with what is accepted."""
    if not isinstance(value, str) or not re.fullmatch(r"(cuda|xpu)(:\d+)?", value):
        msg = f"{value!r} is not a device: write it as torch does, 'cuda:0' or 'xpu:1'"
        raise ValueError(msg)
    return value if ":" in value else f"{value}:0"


CONTEXT_BYTES: Final = 512 * 2**20
"""GPU memory of a process outside torch's reserve: the driver's context and workspaces, some hundred MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VramReading:
    """One device's allocator at a boundary, in bytes; the peaks are those since the boundary before."""

    device: str
    """Torch's name: ``"cuda:0"``."""
    allocated_bytes: int
    """Held by tensors."""
    reserved_bytes: int
    """Held by the allocator, for tensors that are there or may come."""
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    peak_fragmented_bytes: int = 0
    """Unused, in pieces beside tensors: torch's ``inactive_split_bytes``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverReading:
    """One device by its driver, in bytes; the peaks are those since it was last asked."""

    device: str
    used_bytes: int
    """Memory that all processes use."""
    peak_used_bytes: int
    own_bytes: int | None
    """Memory that the worker and its children use; ``None`` where the driver does not list them."""
    peak_own_bytes: int | None


@dataclass(slots=True)
class VramWindow:
    """The peaks of one stretch, above what the process held on each device when it began."""

    _base: Mapping[str, VramReading]
    _driver_base: Mapping[str, DriverReading] = field(default_factory=dict)
    _peaks: dict[str, VramRecord] = field(default_factory=dict)

    @classmethod
    def opened(cls, readings: Iterable[VramReading], driver: Iterable[DriverReading] = ()) -> Self:
        """A stretch that begins with these readings."""
        return cls({reading.device: reading for reading in readings}, {reading.device: reading for reading in driver})

    def add(self, readings: Iterable[VramReading]) -> None:
        """Take in what a boundary within the stretch, or at its end, has read."""
        for reading in readings:
            base, before = self._base.get(reading.device), self._peak(reading.device)
            allocated_bytes = reading.peak_allocated_bytes - (base.allocated_bytes if base else 0)
            reserved_bytes = reading.peak_reserved_bytes - (base.reserved_bytes if base else 0)
            self._peaks[reading.device] = replace(
                before,
                peak_allocated_bytes=max(before.peak_allocated_bytes, allocated_bytes),
                peak_reserved_bytes=max(before.peak_reserved_bytes, reserved_bytes),
                peak_fragmented_bytes=max(before.peak_fragmented_bytes, reading.peak_fragmented_bytes),
                baseline_bytes=base.reserved_bytes if base else 0,
            )

    def add_driver(self, readings: Iterable[DriverReading]) -> None:
        """Take in what the driver says while the stretch goes on.

        Once it has listed the worker's processes, memory of other processes is not counted.
        """
        for reading in readings:
            base, before = self._driver_base.get(reading.device), self._peak(reading.device)
            if reading.peak_own_bytes is not None:
                earlier_bytes = (before.peak_device_bytes or 0) if before.device_method == "process" else 0
                grown_bytes = reading.peak_own_bytes - ((base.own_bytes or 0) if base else 0)
                method: DeviceMethod = "process"
            elif before.device_method != "process":
                earlier_bytes = before.peak_device_bytes or 0
                grown_bytes = reading.peak_used_bytes - (base.used_bytes if base else reading.used_bytes)
                method = "device"
            else:
                continue
            self._peaks[reading.device] = replace(
                before, peak_device_bytes=max(earlier_bytes, grown_bytes), device_method=method
            )

    def _peak(self, device: str) -> VramRecord:
        return self._peaks.get(device) or VramRecord(device=device, peak_allocated_bytes=0, peak_reserved_bytes=0)

    def used_bytes(self, budget: Budget) -> int:
        """Use, as a budget of one device counts it: growth, or, for a share of the device, all that the process held."""
        peak = self._peaks.get(budget.device or "")
        if peak is None:
            return 0
        if budget.count == "device":
            driver_base = self._driver_base.get(peak.device) if budget.limit.is_share else None
            held_bytes = driver_base.own_bytes or 0 if driver_base else 0
            return (peak.peak_device_bytes or 0) + held_bytes
        base = self._base.get(peak.device) if budget.limit.is_share else None
        if budget.count == "allocated":
            return peak.peak_allocated_bytes + (base.allocated_bytes if base else 0)
        return peak.peak_reserved_bytes + (base.reserved_bytes if base else 0)

    def seen_bytes(self, budget: Budget) -> int:
        """The use that can be seen from outside while the test runs: torch's own numbers come later."""
        if budget.count == "device":
            return self.used_bytes(budget)
        peak = self._peaks.get(budget.device or "")
        if peak is None or peak.device_method != "process":
            return 0
        return max(0, (peak.peak_device_bytes or 0) - CONTEXT_BYTES)

    def held_bytes(self, readings: Iterable[DriverReading]) -> int:
        """Growth on all devices together, now."""
        held_bytes = 0
        for reading in readings:
            base = self._driver_base.get(reading.device)
            if reading.own_bytes is not None:
                held_bytes += reading.own_bytes - ((base.own_bytes or 0) if base else 0)
            elif base is not None and self._peak(reading.device).device_method != "process":
                held_bytes += reading.used_bytes - base.used_bytes
        return max(0, held_bytes)

    @property
    def peaks(self) -> tuple[VramRecord, ...]:
        """One for each device that was used, in the order of their names."""
        return tuple(self._peaks[device] for device in sorted(self._peaks))
