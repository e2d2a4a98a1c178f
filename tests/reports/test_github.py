"""The step summary and the annotations, read back as GitHub's runner reads them."""

import re
from dataclasses import replace
from urllib.parse import unquote

from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.reports.github import annotations, summary
from tests.reports.records import hostile, large, sample


def parsed(command: str) -> tuple[dict[str, str], str]:
    """Properties and message of an ``::error`` command; the runner decodes what follows a percent sign."""
    match = re.fullmatch(r"::error ([^:]*)::(.*)", command)
    assert match is not None
    pairs = (pair.split("=", 1) for pair in match[1].split(","))
    return {name: unquote(value) for name, value in pairs}, unquote(match[2])


def chart(record: SessionRecord) -> dict[str, str]:
    (block,) = re.findall(r"```mermaid\nxychart-beta horizontal\n(.*?)```", summary(record), re.DOTALL)
    return dict(line.strip().split(" ", 1) for line in block.splitlines())


def numbers(values: str) -> list[float]:
    return [float(value) for value in values.strip("[]").split(",")]


def unbudgeted(test: TestRecord) -> TestRecord:
    return replace(test, budgets=())


def test_each_failure_is_an_error_on_its_line() -> None:
    failed = [test for test in sample().tests if test.outcome in {"failed", "error"}]

    errors = [parsed(command) for command in annotations(sample())]

    assert {f"{place['file']}:{place['line']}" for place, _ in errors} == {test.location for test in failed}
    assert errors[0][0]["title"] == "tests/test_load.py::test_float32_fits[polyglot-ko-1.3b]: failed: over budget"
    assert (
        errors[0][1].splitlines()[0]
        == "max_ram is 3396 MB (1.2 * weights + 200MB), used 5350 MB unreclaimable: 1954 MB over"
    )
    assert "tests/test_load.py:13 in test_float32_fits" in errors[0][1]


def test_a_command_is_one_line_and_comes_back_as_it_was() -> None:
    (test,) = hostile().tests

    (command,) = annotations(hostile())

    place, message = parsed(command)
    assert "\n" not in command
    assert (place["file"], place["line"]) == ("tests/a,b:c%.py", "7")
    assert place["title"].startswith(test.nodeid.replace("\ud800", "?"))
    assert test.stack[0].replace("\ud800", "?") in message


def test_an_unknown_place_is_left_out() -> None:
    test = replace(sample().tests[1], location=None)

    (command,) = annotations(SessionRecord(environment={}, tests=(test,)))

    assert parsed(command)[0].keys() == {"title"}


def test_what_github_would_not_show_is_not_sent() -> None:
    failing = [replace(sample().tests[1], nodeid=f"test_x.py::test_{number}") for number in range(30)]

    assert len(list(annotations(SessionRecord(environment={}, tests=tuple(failing))))) == 10
    assert list(annotations(SessionRecord(environment={}, tests=sample().tests[:1]))) == []


def test_the_summary_has_the_three_worst_and_the_table() -> None:
    text = summary(sample())

    assert re.findall(r"^### `(.*)`$", text, re.MULTILINE) == [
        "tests/test_load.py::test_float32_fits[polyglot-ko-1.3b]",
        "tests/test_serving.py::TestMidm::test_naive_load_in_a_16gb_container[midm-7b]",
        "tests/test_serving.py::test_answers_within_a_minute",
    ]
    assert text.count("\n| ") == 1 + len(sample().tests)


def test_the_chart_has_the_budgets_that_are_used_most() -> None:
    drawn = chart(sample())

    assert numbers(drawn["bar"]) == [157.5, 84.5, 74.8, 41.0]
    assert numbers(drawn["line"]) == [100.0] * 4
    assert drawn["x-axis"].startswith('["1 test_float32_fits polyglot-ko')


def test_the_chart_has_peaks_where_no_test_has_a_budget() -> None:
    drawn = chart(replace(sample(), tests=tuple(map(unbudgeted, sample().tests[:3]))))

    assert drawn["y-axis"] == '"GB unreclaimable" 0 --> 16'
    assert numbers(drawn["bar"]) == [15.9, 5.3, 0.0]
    assert "line" not in drawn


def test_nothing_in_a_name_ends_the_chart() -> None:
    drawn = chart(hostile())

    assert re.fullmatch(r'\["[\w .=-]*…?"\]', drawn["x-axis"])


def test_a_budget_of_nothing_has_no_share() -> None:
    nothing = Verdict(kind="max_ram", limit="0B", limit_bytes=0, actual_bytes=5, held=False)
    test = replace(sample().tests[0], budgets=(nothing,), outcome="failed")

    assert "| 0 B |  |" in summary(SessionRecord(environment={}, tests=(test,)))


def test_a_huge_session_stays_below_what_github_takes() -> None:
    record = large(tests=3000, points=2)
    long = replace(record, tests=tuple(replace(test, nodeid=test.nodeid + "한" * 5000) for test in record.tests))

    text = summary(long)

    assert len(text.encode()) < 2**20
    assert text.count("\n| ") == 101
    assert "\nand 2900 more\n" in text
