"""A plan: everything about a job that is decided before it runs."""

from dataclasses import dataclass, replace
from typing import Self

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.terms import Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """The budgets, the time limit, and the checkpoint of one job."""

    budgets: tuple[Budget, ...] = ()
    timeout_s: float | None = None
    reserve_bytes: int = 0
    terms: Terms
    """Terms of limits that only the running test sets (``memory_budget``)."""
    shards: tuple[str, ...] = ()
    """Files of the checkpoint that may be loaded, in order."""
    draws_timeline: bool = False
    judges_setup: bool = True
    """Whether setup counts for the budgets: not where it repeats what another test has paid for already."""
    baseline_allows_bytes: int | None = None
    """Unreclaimable growth beyond which a stack is taken; ``None`` without a baseline."""
    rank: int | None = None
    """Rank of the worker that runs the job, if several workers run it."""
    ranks: int = 1
    """Workers that run the job at once."""
    rank_budgets: tuple[Budget, ...] = ()
    """Budgets of each single rank; ``budgets`` then apply to all ranks together."""

    def of_rank(self, rank: int) -> Self:
        """The plan of one rank."""
        budgets = tuple(replace(budget, rank=rank) for budget in self.rank_budgets)
        return replace(self, budgets=budgets, rank=rank, ranks=1, rank_budgets=(), baseline_allows_bytes=None)

    def without_setup(self) -> Self:
        """The plan of a test that repeats another test's setup: limits that would count the setup are not enforced."""
        budgets = tuple(
            replace(budget, enforce="watch") if budget.enforce in {"cgroup", "cap"} else budget
            for budget in self.budgets
        )
        return replace(self, budgets=budgets, judges_setup=False)
