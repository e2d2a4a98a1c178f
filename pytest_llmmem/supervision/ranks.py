"""Measure and guard one test in several workers at once, its ranks: when one fails, the others are ended.

A rank that waits for one that is gone would wait until its timeout, and then be blamed for it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from pytest_llmmem.core.decide import Seen, State, Stop, TakeStack, decide
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.probes.driver import Driver
from pytest_llmmem.supervision.listener import Listener
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.rank_total import RankTotal
from pytest_llmmem.supervision.supervisor import Supervision
from pytest_llmmem.workers.worker import Worker, wait_for_any

_GRACE_S: Final = 1.0
"""Time for the other ranks to end by themselves: a failure of all ranks is then reported for each."""


class RankListener(Listener, Protocol):
    """Receiver of the events of one rank."""

    @property
    def has_failed(self) -> bool:
        """Whether the body said that it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankJob:
    """The job of one rank."""

    worker: Worker
    job: Any
    plan: JobPlan
    listener: RankListener


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRanks:
    """All that is known of a test in ranks."""

    ranks: tuple[Measured, ...]
    """Each by itself."""
    failed: tuple[int, ...]
    """Those that failed by themselves, the first one first."""
    together: Measured
    """The first rank, with the peak, the budgets and the course of all ranks together."""


def measure_ranks(jobs: Sequence[RankJob], *, plan: JobPlan, driver: Driver) -> MeasuredRanks:
    """Run one job in each rank at once; ``plan`` has what holds for all of them together."""
    group = RankGroup(jobs, plan, [Supervision.of(each.worker, each.plan, each.listener, driver) for each in jobs])
    try:
        group.begin()
        while not group.is_over:
            group.step()
        return group.result()
    except KeyboardInterrupt:
        for each in jobs:
            each.worker.kill()
        raise
    finally:
        for supervision in group.supervisions:
            supervision.close()


@dataclass(slots=True)
class RankGroup:
    """All ranks of one test, step by step."""

    jobs: Sequence[RankJob]
    plan: JobPlan
    supervisions: Sequence[Supervision]
    clock: Callable[[], float] = time.monotonic
    failed: list[int] = field(default_factory=list)
    """Ranks, in the order in which they failed."""
    _end_at_s: float = float("inf")
    """Time at which the ranks that have not failed are ended."""
    _state: State = field(init=False)
    _total: RankTotal = field(init=False)

    def __post_init__(self) -> None:
        # all of them run out of time at once: one that loses another goes on, and is not seen where it waited
        self._state = State(started_s=self.clock(), timeout_s=self.plan.timeout_s)
        for each in self.supervisions:
            each.state = replace(each.state, timeout_s=None)
        self._total = RankTotal(self.plan, self.supervisions, self.clock)

    def begin(self) -> None:
        """Hand over the job to every rank."""
        for supervision, each in zip(self.supervisions, self.jobs, strict=True):
            supervision.begin(each.job, last=True)

    @property
    def is_over(self) -> bool:
        """Whether every rank is done or gone."""
        return all(each.is_over for each in self.supervisions)

    def step(self) -> None:
        """Wait until a rank has sent a message or is to be sampled, and do what is due for all of them."""
        running = [each for each in self.supervisions if not each.is_over]
        wait_for_any([each.worker for each in running], min(each.due_in_s for each in running))
        for supervision in running:
            supervision.step(0)
        now = self.clock()
        self._note_failures(now)
        self._guard(now)
        if now > self._end_at_s:
            self._stop_others()

    def _note_failures(self, now: float) -> None:
        for rank, (supervision, each) in enumerate(zip(self.supervisions, self.jobs, strict=True)):
            died = supervision.is_over and not supervision.finished
            stopped = supervision.state.stopped
            if rank not in self.failed and stopped != "other_rank" and (died or stopped or each.listener.has_failed):
                self.failed.append(rank)
                self._end_at_s = min(self._end_at_s, now + _GRACE_S)

    def _stop_others(self) -> None:
        for rank, supervision in enumerate(self.supervisions):
            if rank not in self.failed:
                supervision.stop("other_rank")

    def _guard(self, now: float) -> None:
        """Judge what all ranks hold together, and end them when their time is over."""
        self._total.sample(now)
        seen = Seen(budgets=self._total.budgets(), machine=self._total.machine())
        match decide(self._state, seen, now):
            case Stop(reason):
                self._state = replace(self._state, stopped=reason)
                running = [each for each in self.supervisions if not each.is_over]
                if reason == "timed_out":
                    for supervision in running:
                        supervision.dumps.take_last()
                for supervision in running:
                    supervision.stop(reason)
            case TakeStack():
                self._state = replace(self._state, breached=True)
                for supervision in self.supervisions:
                    if not supervision.is_over:
                        supervision.take_breach_stack(self._total.breach_sentence())
            case _:
                pass  # each rank is killed by its own supervision

    def result(self) -> MeasuredRanks:
        ranks = tuple(supervision.end(last=True) for supervision in self.supervisions)
        return MeasuredRanks(ranks=ranks, failed=tuple(self.failed), together=self._total.beside(ranks))
