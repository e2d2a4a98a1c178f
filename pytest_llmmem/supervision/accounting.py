"""What a job has used so far, window by window, and which budgets stand over it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from pytest_llmmem import probes
from pytest_llmmem.core.budgets import Budget, Limit, Verdict
from pytest_llmmem.core.measured import Phase
from pytest_llmmem.core.meter import Meter, Window
from pytest_llmmem.core.outcomes import PhaseName
from pytest_llmmem.core.readings import Reading, Segment, Tree
from pytest_llmmem.core.records import MarkRecord
from pytest_llmmem.core.timeline import Point, Timeline
from pytest_llmmem.core.vram import DriverReading, VramWindow
from pytest_llmmem.workers.messages import Accepted, Boundary, Opening, Spent

WHOLE: Final = "test"
"""The name of the window around a whole job."""
PHASES: Final[dict[str, PhaseName]] = {"setup": "setup", "call": "call", "teardown": "teardown"}


@dataclass(slots=True)
class Accounting:
    """Follows the boundaries that a worker crosses, and keeps the account of every stretch between them."""

    budgets: tuple[Budget, ...]
    """Of the whole job."""
    resolve: Callable[[Limit], int]
    """Bytes of a block's own limit; ``ValueError`` if it cannot be known."""
    meter: Meter = field(default_factory=lambda: Meter(probes.mark_error_bytes()))
    whole: Window | None = None
    """``None`` until the job has begun."""
    vram: VramWindow = field(default_factory=lambda: VramWindow({}))
    """Of the whole job."""
    phase: PhaseName | None = None
    """The phase that is running."""
    timeline: Timeline | None = None
    """``None`` when nobody will look at it."""
    is_sampled: bool = True
    """Whether somebody looks from outside. If nobody does, only the mark knows of a peak, and all of it would be uncertain."""
    judges_setup: bool = True
    """``False``: the whole, and all that is judged, begins anew with the call."""
    pinned_bytes: int | None = None
    """Page-locked host memory that torch held at most since the job began; ``None`` while it uses none."""
    _driver: tuple[DriverReading, ...] = ()
    """What the driver said last."""
    _vram_held_bytes: int = 0
    """On all devices together, as of then."""
    _written_before_bytes: int | None = None
    _written_bytes: int = 0
    _drawn_bytes: int = 0
    """The highest point of the timeline since the last boundary."""
    _began: float = field(default_factory=time.monotonic)
    _blocks: dict[int, Budget] = field(default_factory=dict)
    """Limits of the ``memory_budget`` blocks that are open, by the identity of their window."""
    _verdicts: list[Verdict] = field(default_factory=list)
    _phases: list[Phase] = field(default_factory=list)
    _opened: list["_Opened"] = field(default_factory=list)

    def cross(self, boundary: Boundary, family: Tree) -> list[Accepted | Spent]:
        """Close and open windows; returns what the worker waits to hear. ``family`` is its tree's baseline now."""
        self.add_written(boundary.written_bytes)
        ended = self.meter.boundary(boundary.reading, boundary.copied)
        self._draw_boundary(ended, boundary.reading)
        for opened in self._opened:
            opened.vram.add(boundary.vram)
        if self.whole is not None and boundary.pinned_bytes is not None:
            self.pinned_bytes = max(self.pinned_bytes or 0, boundary.pinned_bytes)
        now = time.monotonic()
        closed: list[Accepted | Spent] = [
            self._close(self.meter.close(), self._opened.pop(), now) for _ in range(boundary.closes)
        ]
        answers = closed if boundary.wants_peak else []
        for opening in boundary.opens:
            if opening.name == "call" and not self.judges_setup:
                self._begin_anew(boundary, family, now)
            self._opened.append(_Opened(now, VramWindow.opened(boundary.vram, self._driver)))
            answers += self._open(opening, boundary.reading, family)
        return answers

    def _begin_anew(self, boundary: Boundary, family: Tree, now: float) -> None:
        """Forget what the setup used; its phase, which has ended, keeps it."""
        assert self.whole is not None, "a call follows a setup"
        self.judges_setup = True
        self.whole = self.meter.open(WHOLE, boundary.reading, family)
        self.meter.windows.insert(0, self.meter.windows.pop())
        del self.meter.windows[1]  # the whole as it was
        self._opened[0] = _Opened(now, VramWindow.opened(boundary.vram, self._driver))
        self.vram, self.pinned_bytes = self._opened[0].vram, None
        self._written_before_bytes, self._written_bytes = boundary.written_bytes, 0
        self._drawn_bytes = 0

    def _open(self, opening: Opening, reading: Reading, family: Tree) -> list[Accepted]:
        window = self.meter.open(opening.name, reading, family)
        if opening.name == WHOLE and self.whole is None:
            self.whole, self._began, self.vram = window, self._opened[-1].at, self._opened[-1].vram
        elif opening.name in PHASES:
            self.phase = PHASES[opening.name]
        if opening.limit is None:
            return []
        try:
            limit_bytes = self.resolve(opening.limit)
        except ValueError as error:
            return [Accepted(f"memory_budget {opening.name!r}: {error}")]
        self._blocks[id(window)] = Budget(
            kind="memory_budget", limit=opening.limit, limit_bytes=limit_bytes, name=opening.name
        )
        return [Accepted(None)]

    def _close(self, window: Window, opened: "_Opened", now: float) -> Spent:
        budget = self._blocks.pop(id(window), None)
        verdict = self.verdict(window, budget) if budget else None
        if verdict is not None:
            self._verdicts.append(verdict)
        if window.name in PHASES:
            self.phase = None
        if window is not self.whole:
            self._phases.append(self._phase(window, opened, now))
        breach = verdict.sentence() if verdict and not verdict.held else None
        return Spent(window.peak, budget.limit_bytes if budget else None, breach)

    def sample(self, reading: Reading) -> None:
        """Take in what the worker holds now."""
        self.meter.sample(reading)

    def add_driver_readings(self, readings: tuple[DriverReading, ...], *, in_use: bool) -> None:
        """Take in what the driver says of each device, and whether the worker has anything to do with them."""
        if not readings:
            return  # there was no answer in time
        self._driver = readings
        ours = [each for each in readings if each.peak_own_bytes or (in_use and each.own_bytes is None)]
        for opened in self._opened:
            opened.vram.add_driver(ours)
        self._vram_held_bytes = self.vram.held_bytes(ours)

    def add_written(self, written_bytes: int | None) -> None:
        """Take in what the worker has written to storage since it began; ``None`` when that is unknown."""
        if written_bytes is None:
            return
        if self._written_before_bytes is None:
            self._written_before_bytes = written_bytes
        self._written_bytes = max(self._written_bytes, written_bytes - self._written_before_bytes)

    @property
    def written_bytes(self) -> int | None:
        """What the job wrote to storage; ``None`` where that is unknown."""
        return None if self._written_before_bytes is None else self._written_bytes

    def mark(self, kind: Literal["shard", "breach", "death"], text: str) -> None:
        """Note a moment on the timeline."""
        if self.timeline is not None:
            self.timeline.mark(MarkRecord(seconds=round(time.monotonic() - self._began, 4), kind=kind, text=text))

    def draw(self, reading: Reading) -> None:
        """Put on the timeline what is held now, or, where the mark has just risen above all points, the peak."""
        if self.timeline is None or self.whole is None:
            return
        segment = self.meter.segment
        peak = self.whole.growth_bytes(segment.closed_bytes, self.meter.tree)
        held = self.whole.growth_bytes(reading.unreclaimable_bytes, self.meter.tree)
        self._add_point(peak if peak > self._drawn_bytes else held, reading)

    def _draw_boundary(self, ended: Segment, reading: Reading) -> None:
        """Put on the timeline what only the boundary told of the stretch before it, and what is held now."""
        if self.timeline is None or self.whole is None:
            return
        peak = self.whole.growth_bytes(ended.closed_bytes, self.meter.tree)
        if peak > self._drawn_bytes:
            self._add_point(peak, reading)
        self._drawn_bytes = 0
        self._add_point(self.whole.growth_bytes(reading.unreclaimable_bytes, self.meter.tree), reading)

    def _add_point(self, held_bytes: int, reading: Reading) -> None:
        assert self.timeline is not None
        assert self.whole is not None
        self._drawn_bytes = max(self._drawn_bytes, held_bytes)
        file_bytes = max(0, reading.file_bytes - self.whole.base.file_bytes)
        seconds = time.monotonic() - self._began
        self.timeline.add(Point(seconds, held_bytes, file_bytes, self._vram_held_bytes))

    def standing(self) -> list[tuple[Window, Budget]]:
        """The budgets that can still be broken: the job's own, and those of open blocks."""
        if self.whole is None:
            return []
        blocks = [(window, self._blocks[id(window)]) for window in self.meter.windows if id(window) in self._blocks]
        return [(self.whole, budget) for budget in self.budgets if self.judges_setup] + blocks

    def verdicts(self, *, at_least_bytes: int, unfinished: bool) -> tuple[Verdict, ...]:
        """Every budget beside what was used; ``at_least_bytes`` is what a hard limit on RAM has seen.

        What an ``unfinished`` test used is what was seen of it from outside.
        """
        standing = []
        for window, budget in self.standing():
            verdict = self.verdict(window, budget)
            if unfinished:
                verdict = max(verdict, self.seen(window, budget), key=lambda each: each.actual_bytes)
            if budget.kind not in {"max_vram", "max_disk"} and at_least_bytes > verdict.actual_bytes:
                verdict = Verdict(budget=budget, actual_bytes=at_least_bytes)
            standing.append(verdict)
        return (*standing, *self._verdicts)

    def phases(self) -> tuple[Phase, ...]:
        """In the order in which they began; those that death left open with what they had reached."""
        now = time.monotonic()
        unfinished = [
            self._phase(window, opened, now)
            for window, opened in zip(self.meter.windows, self._opened, strict=True)
            if window is not self.whole
        ]
        return tuple(sorted(self._phases + unfinished, key=lambda phase: phase.started_s))

    def _phase(self, window: Window, opened: "_Opened", now: float) -> Phase:
        return Phase(
            name=window.name,
            peak=window.peak,
            seconds=now - opened.at,
            started_s=opened.at - self._began,
            vram=opened.vram.peaks,
        )

    def seen(self, window: Window, budget: Budget) -> Verdict:
        """What of a budget can be seen from outside while the test runs."""
        if budget.kind == "max_vram":
            return Verdict(budget=budget, actual_bytes=self.vram.seen_bytes(budget))
        return self.verdict(window, budget)

    def held_bytes(self, window: Window, budget: Budget, reading: Reading) -> int:
        """What the worker holds now of what a budget of its memory compares."""
        held = window.growth_bytes(reading.unreclaimable_bytes, self.meter.tree)
        if budget.count == "resident":
            held += reading.file_bytes - window.base.file_bytes
        return held + (window.base.unreclaimable_bytes if budget.limit.is_share else 0)

    def verdict(self, window: Window, budget: Budget) -> Verdict:
        """A budget beside what its window used: growth, or the absolute peak for a share of the machine."""
        if budget.kind == "max_disk":
            return Verdict(budget=budget, actual_bytes=self._written_bytes)
        if budget.kind == "max_vram":
            return Verdict(budget=budget, actual_bytes=self.vram.used_bytes(budget))
        peak = window.peak
        if budget.count == "resident":
            if budget.limit.is_share:
                used, error = peak.absolute_peak_bytes, window.mark_error_bytes
            else:
                used, error = peak.peak_resident_bytes, window.resident_excess_bytes
        else:
            absolute = window.base.unreclaimable_bytes if budget.limit.is_share else 0
            used, error = (
                peak.peak_bytes + absolute,
                window.excess_bytes if self.is_sampled else window.mark_error_bytes,
            )
        return Verdict(budget=budget, actual_bytes=used, error_bytes=error)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is kept of an open window, beside the meter's own account."""

    at: float
    vram: VramWindow
