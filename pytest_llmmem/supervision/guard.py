"""The budgets of a job beside what it has used so far, and the hard limit that enforces one of them."""

from dataclasses import dataclass, field

from pytest_llmmem import probes
from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.decide import GuardedBudget, Machine, Seen
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.supervision.accounting import Accounting
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.workers.limits import Limiter, NoLimiter, build_limiter
from pytest_llmmem.workers.worker import Worker


@dataclass(slots=True)
class Guard:
    """Compares what the accounting knows with what the plan allows."""

    plan: JobPlan
    accounting: Accounting
    limiter: Limiter = field(default_factory=NoLimiter)

    def enforce(self, worker: Worker) -> tuple[str, ...]:
        """Set the hard limit that the plan asks for; returns a note if another had to be taken."""
        of_memory = [budget for budget in self.plan.budgets if budget.kind == "max_ram"]
        if not of_memory:
            return ()
        enforce = next((budget.enforce for budget in of_memory if budget.enforce != "watch"), "watch")
        strictest_bytes = min(budget.limit_bytes for budget in of_memory)
        self.limiter, complaint = build_limiter(enforce, worker, strictest_bytes)
        return (complaint,) if complaint else ()

    @property
    def growth_bytes(self) -> int:
        """The peak of the job so far."""
        whole = self.accounting.whole
        return whole.peak.peak_bytes if whole else 0

    def budgets(self) -> tuple[GuardedBudget, ...]:
        """The budgets that can still be broken, beside what is known now."""
        hard = "max_ram" if self.limiter.name == "cgroup" else None
        return tuple(
            GuardedBudget(
                used_bytes=self.accounting.verdict_now(window, budget).certain_bytes,
                limit_bytes=budget.limit_bytes,
                stops_at_limit=budget.on_breach == "stop" or budget.kind == hard,
            )
            for window, budget in self.accounting.standing()
        )

    def needs_library_pages(self, *, breached: bool) -> bool:
        """Whether a stop or a stack is due that pages of libraries, counted as the test's, may alone have caused."""
        if not any(budget.count == "resident" for budget in self.plan.budgets):
            return False
        return any(budget.must_stop or (budget.breached and not breached) for budget in self.budgets())

    def move_limit(self, reading: Reading) -> None:
        """Move the hard limit with what the worker holds."""
        for window, budget in self.accounting.standing():
            if budget.kind == "max_ram":
                held_bytes = window.held_bytes(budget, reading, self.accounting.meter.tree)
                self.limiter.tick(held_bytes, reading)

    def seen(self, *, at_machine: bool) -> Seen:
        """The facts that a decision needs; of the machine only where it is asked for."""
        return Seen(
            budgets=self.budgets(),
            machine=self._machine() if at_machine else None,
            exceeds_baseline=self._exceeds_baseline(),
        )

    def verdicts(self, *, unfinished: bool) -> tuple[Verdict, ...]:
        """Every budget beside what was used, which is at least what the hard limit has seen when it killed."""
        return self.accounting.verdicts(at_least_bytes=self.limiter.killed_at_bytes(), unfinished=unfinished)

    def breach_sentence(self) -> str:
        """The first broken budget, in words."""
        verdicts = (self.accounting.verdict_now(window, budget) for window, budget in self.accounting.standing())
        return next(verdict.sentence for verdict in verdicts if not verdict.held)

    def _machine(self) -> Machine:
        return Machine(
            available_bytes=probes.host_memory().available_bytes,
            reserve_bytes=self.plan.reserve_bytes,
            growth_bytes=self.growth_bytes,
        )

    def _exceeds_baseline(self) -> bool:
        allowed_bytes = self.plan.baseline_allows_bytes
        return allowed_bytes is not None and self.accounting.judges_setup and self.growth_bytes > allowed_bytes
