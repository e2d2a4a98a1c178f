"""The words that all summaries share."""

from dataclasses import replace

import pytest

from pytest_llmmem.core.records import SessionRecord
from pytest_llmmem.reports import github, markdown
from pytest_llmmem.reports.wording import circumstances, headline, reasons, share_words, state, worst_first
from tests.reports.records import sample
from tests.reports.shapes import budget


def test_a_broken_budget_reads_as_the_failure_did() -> None:
    broken, held = budget("100MB", 100, 250), budget("1GB", 1000, 250, kind="max_disk", count="written")
    test = replace(sample().tests[0], budgets=(broken, held))

    assert reasons(test) == ["max_ram is 100 MB, used 250 MB unreclaimable: 150 MB over"]


@pytest.mark.parametrize(("used", "share"), [(99.8, "100%"), (100, "100%"), (100.1, "101%"), (12.4, "12%")])
def test_only_a_broken_budget_was_used_by_more_than_all_of_it(used: float, share: str) -> None:
    assert share_words(budget("100MB", 100, used)) == share


def test_a_deep_stack_is_shown_with_both_of_its_ends_and_with_what_is_missing() -> None:
    deep = tuple(f"deep.py:{line} in deeper" for line in range(150))
    test = replace(
        sample().tests[1],
        stack=(*deep, "test_x.py:9 in test_x", "torch/nn.py:1 in forward"),
        stack_own=151,
        stack_cut=57,
    )
    session = SessionRecord(environment={}, tests=(test,))

    for page in (markdown.render(session), *github.annotations(session)):
        assert "Stack at the crossing, yours first; 57 frames in the middle are cut:" in page
        assert [deep[0] in page, deep[75] in page, "test_x.py:9 in test_x" in page] == [True, False, True]
        assert "more of yours" in page


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
