"""The section under a failed test."""

import pytest

from pytest_llmmem.core.budgets import Budget, Count, Verdict, parse_limit
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.outcomes import Ending
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.reports.failure import details

MB = 10**6


@pytest.mark.parametrize(
    ("over", "error", "count", "uncertain"),
    [
        (20, 64, "unreclaimable", True),
        (20, 25, "unreclaimable", False),  # what the counters hold back says nothing of mapped files
        (64, 20, "unreclaimable", False),
        (20, 64, "resident", False),  # mapped files count in any case
    ],
)
def test_a_budget_that_may_have_held_says_so(over: int, error: int, count: Count, uncertain: bool) -> None:
    limit = parse_limit("40MB")
    budget = Budget(kind="max_ram", limit=limit, limit_bytes=40 * MB, count=count)
    used = (40 + over) * MB
    peak = Peak(
        baseline_bytes=0, peak_bytes=used, peak_resident_bytes=used, peak_file_bytes=used, absolute_peak_bytes=used,
        error_bytes=error * MB,
    )  # fmt: skip
    verdict = Verdict(budget=budget, actual_bytes=used)

    told = details(
        Measured(
            ending=Ending(kind="completed"), peak=peak, phases=(), verdicts=(verdict,), method="kernel", seconds=1
        ),
        root="",
    )

    assert ("uncertain the error of measuring is larger than what is over" in told) is uncertain
