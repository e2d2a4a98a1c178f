"""The accounting of a job: what each window used so far, and which budgets apply to it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Self

from pytest_llmmem import probes
from pytest_llmmem.core.budgets import Budget, Verdict
from pytest_llmmem.core.endings import PHASES, PhaseName
from pytest_llmmem.core.meter import Meter, Window
from pytest_llmmem.core.readings import Peak, Reading, Tree
from pytest_llmmem.core.record_parts import Phase
from pytest_llmmem.core.segments import Segment
from pytest_llmmem.core.terms import Terms
from pytest_llmmem.core.vram import DriverReading, VramWindow
from pytest_llmmem.supervision.block_budgets import BlockBudgets
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.timeline_recorder import Instant, MarkKind, TimelineRecorder
from pytest_llmmem.supervision.written_bytes import WrittenBytes
from pytest_llmmem.workers.messages import Accepted, Boundary, Opening, Spent

_SMALL_BYTES: Final = 64 * 2**20
WHOLE: Final = "test"
"""The name of the window around a whole job."""


@dataclass(slots=True)
class Accounting:
    """Follows the boundaries that a worker crosses, and keeps the account of every stretch between them."""

    budgets: tuple[Budget, ...]
    """For the whole job."""
    terms: Terms
    """Terms of the limits of blocks."""
    clock: Callable[[], float] = time.monotonic
    meter: Meter = field(default_factory=lambda: Meter(probes.mark_error_bytes()))
    whole: Window | None = None
    """``None`` until the job has begun."""
    vram: VramWindow = field(default_factory=lambda: VramWindow({}))
    """For the whole job."""
    written: WrittenBytes = field(default_factory=WrittenBytes)
    """For the whole job."""
    phase: PhaseName | None = None
    """The phase that is running."""
    timeline: TimelineRecorder | None = None
    """``None`` when no report shows it."""
    is_sampled: bool = True
    """Whether samples are taken. Without them, only the high-water mark shows a peak, and all of it would be uncertain."""
    judges_setup: bool = True
    """``False``: the whole window, and all judged windows, restart with the call."""
    rank: int | None = None
    """Rank of the worker, if several workers run the job."""
    pinned_bytes: int | None = None
    """Page-locked host memory that torch held at most since the job began; ``None`` while it uses none."""
    vram_held_bytes: int = 0
    """Memory on all devices together, from the driver's last sample."""
    _driver: tuple[DriverReading, ...] = ()
    """The driver's last answer."""
    _began: float = field(init=False)
    _blocks: BlockBudgets = field(init=False)
    _verdicts: list[Verdict] = field(default_factory=list)
    _phases: list[Phase] = field(default_factory=list)
    _opened: list["_Opened"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began = self.clock()
        self._blocks = BlockBudgets(self.terms, self.rank)

    @classmethod
    def of(cls, plan: JobPlan, clock: Callable[[], float]) -> Self:
        """The account of a job that has not begun."""
        timeline = TimelineRecorder() if plan.draws_timeline else None
        return cls(plan.budgets, plan.terms, clock, timeline=timeline, judges_setup=plan.judges_setup, rank=plan.rank)

    def cross(self, boundary: Boundary, tree: Tree) -> list[Accepted | Spent]:
        """Close and open windows; returns what the worker waits to hear. ``tree`` is the baseline of its process tree now."""
        self.written.add(boundary.written_bytes)
        ended = self.meter.boundary(boundary.reading, boundary.copied)
        if self.timeline is not None and self.whole is not None:
            self.timeline.boundary(self._point(ended, boundary.reading))
        for opened in self._opened:
            opened.vram.add(boundary.vram)
        if self.whole is not None and boundary.pinned_bytes is not None:
            self.pinned_bytes = max(self.pinned_bytes or 0, boundary.pinned_bytes)
        now = self.clock()
        closed: list[Accepted | Spent] = [
            self._close(self.meter.close(), self._opened.pop(), boundary.reading, now) for _ in range(boundary.closes)
        ]
        answers = closed if boundary.wants_peak else []
        for opening in boundary.opens:
            if opening.name == "call" and not self.judges_setup:
                self._begin_anew(boundary, tree, now)
            self._opened.append(_Opened(now, VramWindow.opened(boundary.vram, self._driver)))
            answers += self._open(opening, boundary.reading, tree)
        return answers

    def _begin_anew(self, boundary: Boundary, tree: Tree, now: float) -> None:
        """Forget what the setup used; its phase, which has ended, keeps it."""
        assert self.whole is not None, "a call follows a setup"
        self.judges_setup = True
        self.whole = self.meter.replace_outermost(WHOLE, boundary.reading, tree)
        self._opened[0] = _Opened(now, VramWindow.opened(boundary.vram, self._driver))
        self.vram, self.pinned_bytes = self._opened[0].vram, None
        self.written = WrittenBytes()
        self.written.add(boundary.written_bytes)
        if self.timeline is not None:
            self.timeline.begin_anew()

    def _open(self, opening: Opening, reading: Reading, tree: Tree) -> list[Accepted]:
        window = self.meter.open(opening.name, reading, tree)
        if opening.name == WHOLE and self.whole is None:
            self.whole, self._began, self.vram = window, self._opened[-1].at, self._opened[-1].vram
        elif opening.name in PHASES:
            self.phase = PHASES[opening.name]
        return self._blocks.open(window, opening)

    def _close(self, window: Window, opened: "_Opened", reading: Reading, now: float) -> Spent:
        budget, keeps = self._blocks.close(window)
        kept_bytes = window.kept_bytes(reading)
        verdicts = [self.verdict(window, budget)] if budget else []
        if keeps is not None:
            verdicts.append(keeps.judge(max(0, kept_bytes), window.kept_error_bytes))
        self._verdicts += verdicts
        if window.name in PHASES:
            self.phase = None
        if window is not self.whole:
            self._phases.append(self._phase(window, opened, now))
        broken = "; ".join(verdict.sentence for verdict in verdicts if not verdict.held)
        return Spent(window.peak, kept_bytes, budget.limit_bytes if budget else None, broken or None)

    def add_driver_readings(self, readings: tuple[DriverReading, ...], *, in_use: bool) -> None:
        """Take in what the driver says of each device, and whether the worker has anything to do with them."""
        if not readings:
            return  # there was no answer in time
        self._driver = readings
        ours = [each for each in readings if each.peak_own_bytes or (in_use and each.own_bytes is None)]
        for opened in self._opened:
            opened.vram.add_driver(ours)
        self.vram_held_bytes = self.vram.held_bytes(ours)

    def mark(self, kind: MarkKind, text: str) -> None:
        """Note a moment on the timeline."""
        if self.timeline is not None:
            self.timeline.mark(kind, text, self._seconds())

    def draw(self, reading: Reading) -> None:
        """Add the current use to the timeline, or the peak if the high-water mark has just risen above all points."""
        if self.timeline is not None and self.whole is not None:
            self.timeline.sample(self._point(self.meter.segment, reading))

    def _point(self, segment: Segment, reading: Reading) -> Instant:
        assert self.whole is not None
        return Instant(
            seconds=self._seconds(),
            held_bytes=self.whole.growth_bytes(reading.unreclaimable_bytes, self.meter.tree),
            peak_bytes=self.whole.growth_bytes(segment.closed_bytes, self.meter.tree),
            file_bytes=max(0, reading.file_bytes - self.whole.base.file_bytes),
            vram_bytes=self.vram_held_bytes,
        )

    def _seconds(self) -> float:
        return self.clock() - self._began

    def peak(self, *, sampled: bool) -> Peak | None:
        """The peak of the whole job, with how it was measured; ``None`` when it has not begun."""
        if self.whole is None:
            return None
        method = "sampled" if sampled else probes.METHOD
        return replace(self.whole.peak, method=method, interval_ms=round(probes.INTERVAL_S * 1000, 3))

    @property
    def is_small(self) -> bool:
        """Whether so little was used that the next test need not wait until it is back."""
        if self.whole is None or self.vram.peaks:  # a device's memory is back when the process is gone
            return False
        peak = self.whole.peak
        return peak.peak_bytes + peak.peak_file_bytes < _SMALL_BYTES

    def standing(self) -> list[tuple[Window, Budget]]:
        """The budgets that can still be broken: the job's own, and those of open blocks."""
        if self.whole is None:
            return []
        blocks = [(window, budget) for window in self.meter.windows if (budget := self._blocks.of_peak(window))]
        return [(self.whole, budget) for budget in self.budgets if self.judges_setup] + blocks

    def verdicts(self, *, at_least_bytes: int, unfinished: bool) -> tuple[Verdict, ...]:
        """Every budget beside what was used; ``at_least_bytes`` is what a hard limit on RAM has seen.

        What an ``unfinished`` test used is what was seen of it from outside.
        """
        standing = []
        for window, budget in self.standing():
            verdict = self.verdict(window, budget)
            if unfinished:
                verdict = max(verdict, self.verdict_now(window, budget), key=lambda each: each.actual_bytes)
            if budget.kind not in {"max_vram", "max_disk"} and at_least_bytes > verdict.actual_bytes:
                verdict = budget.judge(at_least_bytes)
            standing.append(verdict)
        return (*standing, *self._verdicts)

    def phases(self) -> tuple[Phase, ...]:
        """Windows in the order of their beginning; those that were open at death have the peaks reached so far."""
        now = self.clock()
        unfinished = [
            self._phase(window, opened, now)
            for window, opened in zip(self.meter.windows, self._opened, strict=True)
            if window is not self.whole
        ]
        return tuple(sorted(self._phases + unfinished, key=lambda phase: phase.started_s))

    def _phase(self, window: Window, opened: "_Opened", now: float) -> Phase:
        return Phase(
            name=window.name,
            peak_bytes=window.peak.peak_bytes,
            peak_resident_bytes=window.peak.peak_resident_bytes,
            seconds=now - opened.at,
            started_s=opened.at - self._began,
            vram=opened.vram.peaks,
        )

    def verdict_now(self, window: Window, budget: Budget) -> Verdict:
        """The verdict on what can be seen from outside while the test runs."""
        if budget.kind == "max_vram":
            return budget.judge(self.vram.seen_bytes(budget))
        return self.verdict(window, budget)

    def verdict(self, window: Window, budget: Budget) -> Verdict:
        """A budget beside what its window used."""
        match budget.kind:
            case "max_disk":
                return budget.judge(self.written.bytes or 0)
            case "max_vram":
                return budget.judge(self.vram.used_bytes(budget))
            case _:
                return window.judge(budget, is_sampled=self.is_sampled)


@dataclass(frozen=True, slots=True)
class _Opened:
    """An open window, beside the meter's own account."""

    at: float
    vram: VramWindow
