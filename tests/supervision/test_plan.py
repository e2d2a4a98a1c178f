"""The plan of one rank: its own budgets, and nothing that all ranks share."""

from pytest_llmmem.core.terms import Terms
from pytest_llmmem.supervision.plan import JobPlan
from tests.supervision.simulated_job import max_ram


def test_a_rank_is_judged_by_its_own_budgets_alone() -> None:
    together, each = max_ram("80MB"), max_ram("50MB")
    plan = JobPlan(
        terms=Terms(host_bytes=1),
        budgets=(together,),
        rank_budgets=(each,),
        ranks=4,
        timeout_s=3.0,
        baseline_allows_bytes=5,
    )

    of_rank = plan.of_rank(2)

    (budget,) = of_rank.budgets
    assert (budget.limit, budget.rank) == (each.limit, 2)
    assert (of_rank.rank, of_rank.ranks, of_rank.rank_budgets) == (2, 1, ())
    assert (of_rank.timeout_s, of_rank.baseline_allows_bytes) == (3.0, None)


def test_a_setup_that_is_not_judged_is_not_enforced_by_what_cannot_tell_it_apart() -> None:
    budgets = [max_ram("50MB", enforce=enforce) for enforce in ("cgroup", "rlimit")]
    plan = JobPlan(terms=Terms(host_bytes=1), budgets=tuple(budgets))

    again = plan.without_setup()

    assert [budget.enforce for budget in again.budgets] == ["watch", "rlimit"]
    assert not again.judges_setup
