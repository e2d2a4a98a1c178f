"""The page of Markdown, as a Markdown reader sees it."""

import re
from dataclasses import replace

from pytest_llmmem.core.records import SessionRecord
from pytest_llmmem.reports.markdown import code, prose, render, table
from tests.reports.records import hostile, sample


def cells(row: str) -> list[str]:
    """A table's row, parted at the pipes that are not escaped."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def test_the_worst_comes_first_and_every_row_is_whole() -> None:
    tests = sample().tests

    header, _, *rows = table(tests).splitlines()

    assert len(rows) == len(tests)
    assert {len(cells(row)) for row in (header, *rows)} == {7}
    first = next(line for line in render(sample()).splitlines() if line.startswith("| failed"))
    assert cells(first) == [
        "failed: over budget",
        "`tests/test_load.py::test_float32_fits[polyglot-ko-1.3b]`",
        "5350 MB",
        "1021 MB",
        "3396 MB",
        "**158%**",
        "7.2 s",
    ]


def test_every_failure_has_its_reasons_and_its_stack() -> None:
    page = render(sample())

    failed = [test for test in sample().tests if test.outcome in {"failed", "error"}]
    assert page.count("\n### ") == len(failed)
    for test in failed:
        assert all(frame in page for frame in test.stack)
        assert all(prose(line) in page for line in (test.diagnosis.lines if test.diagnosis else ()))


def test_what_is_unknown_is_empty() -> None:
    (row,) = [line for line in render(sample()).splitlines() if "leaves_quietly`" in line and line.startswith("|")]

    assert cells(row)[2:6] == ["", "", "", ""]


def test_no_text_becomes_markup() -> None:
    page = render(hostile())

    outside_code = re.sub(r"(`{4,})text\n.*?\n\1|(?<!`)(`+)(?!`).*?(?<!`)\2(?!`)", "", page, flags=re.DOTALL)
    outside_code = re.sub(r"\\.", "", outside_code.replace("<sub>", "").replace("</sub>", ""))
    assert page.encode("utf-8")
    assert "<" not in outside_code
    assert "`" not in outside_code
    assert "](" not in outside_code
    assert [len(cells(line)) for line in page.splitlines() if line.startswith("|")] == [7, 7, 7]


def test_a_code_span_may_hold_backticks() -> None:
    assert code("plain") == "`plain`"
    assert code("a`b``c") == "``` a`b``c ```"


def test_a_long_name_is_cut_and_a_long_stack_too() -> None:
    test = replace(
        sample().tests[1], nodeid="test_x.py::" + "x" * 1000, stack=tuple(f"file.py:{n} in f" for n in range(40))
    )

    page = render(SessionRecord(environment={}, tests=(test,)))

    assert max(map(len, page.splitlines())) < 400
    assert "and 28 more" in page


def test_a_session_without_tests_says_so() -> None:
    assert render(SessionRecord(environment={}, tests=())) == "# Memory of isolated tests\n\nNo test ran in a worker.\n"
