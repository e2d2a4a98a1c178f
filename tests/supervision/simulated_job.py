"""A job without processes: its clock, its boundaries and its samples are what a test says."""

from dataclasses import dataclass, field
from typing import Any

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.decide import Action, State, decide
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.meter import NONE_COPIED, Meter
from pytest_llmmem.core.readings import NOTHING, Reading
from pytest_llmmem.core.terms import Terms
from pytest_llmmem.supervision.accounting import WHOLE, Accounting
from pytest_llmmem.supervision.guard import Guard
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.timeline_recorder import TimelineRecorder
from pytest_llmmem.workers.messages import Accepted, Boundary, Opening, Spent

MB = 10**6
TERMS = Terms(host_bytes=10**12)


def reading(anonymous_mb: float, *, file: float = 0, mark: float | None = None, faults: float | None = None) -> Reading:
    """``mark`` as the kernel keeps it since the last boundary; without ``faults`` nothing bounds what no sample saw."""
    return Reading(
        anonymous_bytes=round(anonymous_mb * MB),
        file_bytes=round(file * MB),
        mark_bytes=None if mark is None else round(mark * MB),
        faulted_bytes=None if faults is None else round(faults * MB),
    )


def max_ram(limit: str, **rules: str) -> Budget:
    parsed = parse_limit(limit)
    return Budget(kind="max_ram", limit=parsed, limit_bytes=TERMS.bytes(parsed), **rules)  # type: ignore[arg-type]


@dataclass
class SimulatedJob:
    """Stands in for the worker and the sampler, beside the real accounting, guard and decision."""

    plan: JobPlan = field(default_factory=lambda: JobPlan(terms=TERMS))
    now_s: float = 0.0
    timeline: TimelineRecorder | None = None

    def __post_init__(self) -> None:
        self.accounting = Accounting(
            self.plan.budgets,
            self.plan.terms,
            clock=lambda: self.now_s,
            meter=Meter(),
            timeline=self.timeline,
            judges_setup=self.plan.judges_setup,
        )
        self.guard = Guard(self.plan, self.accounting)
        self.state = State(started_s=0.0, timeout_s=self.plan.timeout_s)

    def cross(
        self,
        at: Reading,
        *,
        closes: int = 0,
        opens: tuple[str, ...] = (),
        limit: str | None = None,
        keeps: str | None = None,
        **told: Any,
    ) -> list[Accepted | Spent]:
        """A boundary, at which ``limit`` and ``keeps`` are those of the window that is opened."""
        limits = [parse_limit(each) if each else None for each in (limit, keeps)]
        openings = tuple(Opening(name, *limits) for name in opens)
        boundary = Boundary(at, closes, openings, NONE_COPIED, wants_peak=bool(closes), **told)
        return self.accounting.cross(boundary, NOTHING)

    def begin(self, at: Reading, *phases: str) -> None:
        self.cross(at, opens=(WHOLE, *phases))

    def sample(self, now: Reading, *, after_s: float = 0.002) -> Action | None:
        """A sample, and what is decided upon it."""
        self.now_s += after_s
        self.accounting.meter.sample(now)
        self.accounting.draw(now)
        self.guard.move_limit(now)
        return decide(self.state, self.guard.seen(at_machine=False), self.now_s)
