"""The meter of steps: the storages of tensors, and the kernel's counters of the process for each phase."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.measuring.blocks import MemoryBudget, memory_budget

if TYPE_CHECKING:
    from pytest_llmmem.models.steps.phases import Phases, Stage


@contextlib.contextmanager
def measured_steps(*watched: Any, phases: "Phases | None" = None) -> "Iterator[StepMeter]":
    """The storages, and the process in a window for each phase, so that the high-water mark gives each peak."""
    from pytest_llmmem.models.steps.tracker import StorageTracker

    meter = StepMeter()
    tracker = meter.tracker = StorageTracker(*watched, phases=phases, on_stage=meter.stage_begins)
    with tracker:
        meter.begin(tracker.held_bytes)
        try:
            yield meter
        finally:
            meter.end()


class StepMeter:
    """The storages of steps, and the kernel's counters of the process."""

    tracker: Any

    def __init__(self) -> None:
        self._open: MemoryBudget | None = None
        self._key = (1, "")
        self._first_bytes: int | None = None
        self._held_bytes = 0
        self._peaks: dict[tuple[int, str], int] = {}

    def begin(self, held_bytes: int) -> None:
        """Begin the first phase, with ``held_bytes`` of tensors."""
        self._held_bytes = held_bytes
        self._enter(self.tracker.stage)

    def stage_begins(self, stage: "Stage") -> None:
        """The next one begins."""
        self.end()
        self._enter(stage)

    def end(self) -> None:
        """The last one is over."""
        if self._open is None:
            return
        self._open.__exit__(None, None, None)
        peak = self._open.peak
        self._open = None
        if peak is None:
            return
        if self._first_bytes is None:
            self._first_bytes = peak.baseline_bytes
        reached = self._held_bytes + peak.baseline_bytes - self._first_bytes + peak.peak_resident_bytes
        self._peaks[self._key] = max(reached, self._peaks.get(self._key, 0))

    def memory(self, name: str) -> StepMemory:
        """All that was measured."""
        found: StepMemory = self.tracker.memory(name)
        phases = tuple(
            dataclasses.replace(each, process_peak_bytes=self._peaks.get((each.step, each.phase)))
            for each in found.phases
        )
        return dataclasses.replace(found, phases=phases)

    def _enter(self, stage: "Stage") -> None:
        self._key = stage.step, stage.phase
        self._open = memory_budget(None, name=f"{stage.phase} {stage.step}").__enter__()
