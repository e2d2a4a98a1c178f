"""The words that all summaries share."""

from dataclasses import replace

import pytest

from pytest_llmmem.core.budgets import Budget, Verdict, parse_limit
from pytest_llmmem.core.records import BudgetRecord
from pytest_llmmem.reports.digest import circumstances, headline, reasons, state, worst_first
from tests.reports.records import sample


@pytest.mark.parametrize(
    ("kind", "limit", "count", "name"),
    [("max_ram", "100MB", "unreclaimable", None), ("max_ram", "1.2 * weights + 200MB", "resident", None), ("memory_budget", "50 MB", "unreclaimable", "decode"), ("max_disk", "1GB", "written", None), ("max_vram", "80% device", "reserved", None)],
)  # fmt: skip
def test_a_broken_budget_reads_as_the_failure_did(kind, limit, count, name) -> None:
    device = "cuda:0" if kind == "max_vram" else None
    budget = Budget(kind=kind, limit=parse_limit(limit), limit_bytes=100_000_000, count=count, name=name, device=device)
    record = BudgetRecord(
        kind=kind,
        limit=limit,
        limit_bytes=100_000_000,
        actual_bytes=250_000_000,
        held=False,
        count=count,
        name=name,
        device=device,
    )
    test = replace(sample().tests[0], budgets=(record,))

    assert reasons(test) == [Verdict(budget=budget, actual_bytes=250_000_000).sentence()]


def test_the_headline_counts_outcomes_and_unusual_endings() -> None:
    assert headline(sample()) == (
        "11 isolated tests: 4 failed, 1 error, 1 xfailed, 4 passed, 1 skipped; "
        "1 over budget, 1 out of memory, 1 crashed, 1 timed out, 1 exited"
    )
    one = replace(sample(), tests=sample().tests[:1])
    assert headline(one) == "1 isolated test: 1 passed"
    interrupted = replace(one, interrupted="while test_x.py::test_a ran")
    assert headline(interrupted) == (
        "1 isolated test: 1 passed. Interrupted, while test_x.py::test_a ran: the others did not run"
    )


def test_failures_come_first_then_what_is_nearest_to_its_budget() -> None:
    assert [test.outcome for test in worst_first(sample().tests)] == [
        *["failed"] * 4,
        "error",
        "xfailed",
        *["passed"] * 4,
        "skipped",
    ]
    shares = [state(test) for test in worst_first(sample().tests)[:2]]
    assert shares == ["failed: over budget", "failed: out of memory SIGKILL in setup"]


def test_what_is_unknown_of_the_circumstances_is_left_out() -> None:
    assert ("host", "25.3 GB") in circumstances(sample().environment)
    assert "safetensors" not in dict(circumstances(sample().environment))
