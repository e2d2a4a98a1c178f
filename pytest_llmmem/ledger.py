"""What a job has used so far, window by window, and which budgets stand over it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pytest_llmmem import probes
from pytest_llmmem.core.budgets import Budget, Limit, Verdict
from pytest_llmmem.core.measured import Phase
from pytest_llmmem.core.outcomes import PhaseName
from pytest_llmmem.core.readings import Meter, Reading, Tree, Window
from pytest_llmmem.workers.wire import Accepted, Boundary, Opening, Spent

WHOLE: Final = "test"
"""The name of the window around a whole job."""
PHASES: Final[dict[str, PhaseName]] = {"setup": "setup", "call": "call", "teardown": "teardown"}


@dataclass(slots=True)
class Ledger:
    """Follows the boundaries that a worker crosses, and keeps the account of every stretch between them."""

    budgets: tuple[Budget, ...]
    """Of the whole job."""
    resolve: Callable[[Limit], int]
    """Bytes of a block's own limit; ``ValueError`` if it cannot be known."""
    meter: Meter = field(default_factory=lambda: Meter(probes.mark_error_bytes()))
    whole: Window | None = None
    """``None`` until the job has begun."""
    phase: PhaseName | None = None
    """The phase that is running."""
    _blocks: dict[int, Budget] = field(default_factory=dict)
    """Limits of the ``memory_budget`` blocks that are open, by the identity of their window."""
    _verdicts: list[Verdict] = field(default_factory=list)
    _phases: list[tuple[float, Phase]] = field(default_factory=list)
    """With the moment at which each began."""
    _opened: list[float] = field(default_factory=list)

    def cross(self, boundary: Boundary, family: Tree) -> list[Accepted | Spent]:
        """Close and open windows; returns what the worker waits to hear. ``family`` is its tree's baseline now."""
        self.meter.boundary(
            boundary.reading, copied_bytes=boundary.copied_bytes, uncertain_bytes=boundary.uncertain_bytes
        )
        now = time.monotonic()
        closed: list[Accepted | Spent] = [
            self._close(self.meter.close(), self._opened.pop(), now) for _ in range(boundary.closes)
        ]
        answers = closed if boundary.wants_peak else []
        for opening in boundary.opens:
            self._opened.append(now)
            answers += self._open(opening, boundary.reading, family)
        return answers

    def _open(self, opening: Opening, reading: Reading, family: Tree) -> list[Accepted]:
        window = self.meter.open(opening.name, reading, family)
        if opening.name == WHOLE and self.whole is None:
            self.whole = window
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

    def _close(self, window: Window, opened: float, now: float) -> Spent:
        budget = self._blocks.pop(id(window), None)
        verdict = Verdict(budget=budget, actual_bytes=used_bytes(window, budget)) if budget else None
        if verdict is not None:
            self._verdicts.append(verdict)
        if window.name in PHASES:
            self.phase = None
        if window is not self.whole:
            self._phases.append((opened, Phase(name=window.name, peak=window.peak, seconds=now - opened)))
        breach = verdict.sentence() if verdict and not verdict.held else None
        return Spent(window.peak, budget.limit_bytes if budget else None, breach)

    def standing(self) -> list[tuple[Window, Budget]]:
        """The budgets that can still be broken: the job's own, and those of open blocks."""
        if self.whole is None:
            return []
        blocks = [(window, self._blocks[id(window)]) for window in self.meter.windows if id(window) in self._blocks]
        return [(self.whole, budget) for budget in self.budgets] + blocks

    def verdicts(self, *, at_least_bytes: int) -> tuple[Verdict, ...]:
        """Every budget beside what was used; ``at_least_bytes`` is what a hard limit has seen."""
        standing = [
            Verdict(budget=budget, actual_bytes=max(used_bytes(window, budget), at_least_bytes))
            for window, budget in self.standing()
        ]
        return (*standing, *self._verdicts)

    def phases(self) -> tuple[Phase, ...]:
        """In the order in which they began; those that death left open with what they had reached."""
        now = time.monotonic()
        unfinished = [
            (opened, Phase(name=window.name, peak=window.peak, seconds=now - opened))
            for window, opened in zip(self.meter.windows, self._opened, strict=True)
            if window is not self.whole
        ]
        return tuple(phase for _, phase in sorted(self._phases + unfinished, key=lambda begun: begun[0]))


def used_bytes(window: Window, budget: Budget) -> int:
    """What a budget compares: growth, or the absolute peak for a share of the machine."""
    peak = window.peak
    if budget.count == "resident":
        return peak.absolute_peak_bytes if budget.limit.is_share else peak.peak_resident_bytes
    if budget.limit.is_share:
        return peak.peak_bytes + window.base.unreclaimable_bytes
    return peak.peak_bytes
