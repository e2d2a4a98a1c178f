"""``first_load_that_fits``: strategies are tried in order, each in a worker of its own, before the test itself runs."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.core.record_parts import TrialRecord
from pytest_llmmem.plugin.collect.loads import FITTING, Load, own_strategies, session_loads
from pytest_llmmem.plugin.report.late_verdicts import with_refusal
from pytest_llmmem.plugin.worker.messages import Loaded, Raised, Unusable
from pytest_llmmem.reports import failure
from pytest_llmmem.supervision.plan import JobPlan

if TYPE_CHECKING:
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint


def loads_to_try(config: pytest.Config, checkpoint: "Checkpoint", *, ranks: int) -> list[Load]:
    """Those of ``--llm-load``, else every strategy that is offered for the checkpoint's format, the team's own first.

    In several ranks, the strategies that spread a model over ranks are offered, and only those.
    """
    from pytest_llmmem.models.loading.strategies import STRATEGIES

    known = (*own_strategies(config), *(each for each in STRATEGIES.values() if each.offered or each.needs_ranks))
    fitting = (each for each in known if each.only_format in {None, checkpoint.format})
    return session_loads(config) or [Load.of(each) for each in fitting if each.needs_ranks == (ranks > 1)]


class TrialInbox:
    """The parent's inbox: messages from a worker about one trial."""

    steps = ()
    """A trial runs no steps."""

    def __init__(self) -> None:
        self.loaded: Loaded | None = None
        self.raised: Raised | None = None
        self.unusable: Unusable | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the load raised."""
        return self.raised is not None

    def received(self, what: Any) -> None:
        match what:
            case Loaded():
                self.loaded = what
            case Raised():
                self.raised = what
            case Unusable():
                self.unusable = what

    def progress(self, pid: int, seconds: float, reading: Reading, growth_bytes: int) -> None:
        """A trial shows no line of its own."""

    def record(self, chosen: Load, measured: Measured) -> TrialRecord:
        """One row of the table."""
        measured = with_refusal(measured, self.raised)
        peak = None if self.unusable else measured.peak
        held = all(verdict.held for verdict in measured.verdicts)
        why = ""
        if self.unusable:
            why = self.unusable.reason
        elif self.raised:
            rank = f"rank {measured.ending.rank}: " if measured.ending.rank else ""
            why = f"{rank}{self.raised.line}"
        elif measured.ending.died:
            why = failure.death_sentence(measured)
        elif not held:
            why = next(verdict.sentence for verdict in measured.verdicts if not verdict.held)
        ending = "unavailable" if self.unusable else "raised" if self.raised else measured.ending.kind
        return TrialRecord(
            load=chosen.strategy,
            ending=ending if held or self.unusable or measured.ending.died else "over_budget",
            fits=not why,
            peak_bytes=peak.peak_bytes if peak else None,
            peak_resident_bytes=peak.peak_resident_bytes if peak else None,
            seconds=measured.seconds,
            disk_bytes=self.loaded.disk_bytes if self.loaded else 0,
            call=self.loaded.call if self.loaded else "",
            why=why,
        )


def trial_plan(plan: JobPlan) -> JobPlan:
    """The test's own plan, stopped where it breaks: the next strategy waits."""
    stopped, of_rank = (
        tuple(replace(budget, on_breach="stop") for budget in budgets) for budgets in (plan.budgets, plan.rank_budgets)
    )
    return replace(plan, budgets=stopped, rank_budgets=of_rank, draws_timeline=False)


def is_asked_by(item: pytest.Item) -> bool:
    """Whether a test wants the first load that fits."""
    return FITTING in getattr(item, "fixturenames", ())
