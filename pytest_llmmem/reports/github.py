"""GitHub's view of a session: a step summary, and annotations on the lines of the tests that failed.

Both are text; writing it to ``$GITHUB_STEP_SUMMARY`` and printing it is the caller's.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Final

from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.core.sizes import UNITS, format_size
from pytest_llmmem.core.stacks import elided
from pytest_llmmem.reports.markdown import account, cells, page, prose, surroundings, table
from pytest_llmmem.reports.wording import (
    FAILURES,
    encodable,
    headline,
    reasons,
    stack_words,
    state,
    tightest,
    worst_first,
)

_ROWS: Final = 100
"""A step summary may have 1 MiB; a row has less than 600 bytes."""
_WORST: Final = 3
_BARS: Final = 10
_LABEL: Final = 32
_FRAMES: Final = 20
_ANNOTATIONS: Final = 10
"""GitHub shows no more errors of one step."""


def summary(record: SessionRecord) -> str:
    """The step summary: the headline, a chart, the three worst, the table."""
    tests = worst_first(record.tests)
    worst = [account(test) for test in tests[:_WORST] if test.outcome in FAILURES]
    hidden = f"and {len(tests) - _ROWS} more" if len(tests) > _ROWS else ""
    rows = table(tests[:_ROWS])
    return page(
        "## Memory of isolated tests",
        f"{prose(headline(record))}.",
        cells(record),
        _chart(tests),
        *worst,
        rows,
        hidden,
        surroundings(record),
    )


def _chart(tests: Sequence[TestRecord]) -> str:
    """Used shares of the budgets of the worst tests; their peaks, where none has a budget."""
    budgeted = [(test, budget) for test in tests if (budget := tightest(test.budgets)) and budget.limit_bytes][:_BARS]
    if budgeted:
        shares = [100 * budget.actual_bytes / budget.limit_bytes for _, budget in budgeted]
        return _bars([test for test, _ in budgeted], "% of the budget", shares, line=[100.0] * len(shares))
    measured = [(test, test.ram.peak_bytes) for test in tests if test.ram and test.ram.peak_bytes > 0][:_BARS]
    if not measured:
        return ""
    unit = format_size(max(peak for _, peak in measured)).split()[1]
    return _bars([test for test, _ in measured], f"{unit} unreclaimable", [peak / UNITS[unit] for _, peak in measured])


def _bars(tests: Sequence[TestRecord], axis: str, values: Sequence[float], line: Sequence[float] = ()) -> str:
    names = ", ".join(f'"{number} {_label(test)}"' for number, test in enumerate(tests, start=1))
    lines = [
        f"  x-axis [{names}]",
        f'  y-axis "{axis}" 0 --> {max(*values, *line, 1):.0f}',
        f"  bar [{_numbers(values)}]",
    ]
    if line:
        lines.append(f"  line [{_numbers(line)}]")
    return "\n".join(("```mermaid", "xychart-beta horizontal", *lines, "```"))


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _label(test: TestRecord) -> str:
    """The test's name without its file, in characters that mean nothing to mermaid."""
    name = re.sub(r"[^\w.=-]+", " ", test.nodeid.rpartition("::")[2]).strip()
    return name if len(name) <= _LABEL else f"{name[:_LABEL]}…"


def annotations(record: SessionRecord, *, folder: str = "") -> Iterator[str]:
    """Workflow commands, one for each failed test, the worst first, as many as GitHub shows.

    ``folder`` is pytest's root within the repository, ``""`` where it is the repository's.
    """
    failed = [test for test in worst_first(record.tests) if test.outcome in FAILURES]
    for test in failed[:_ANNOTATIONS]:
        file, _, line = (test.location or "").rpartition(":")
        place = {"file": posixpath.join(folder, file), "line": line} if file else {}
        properties = {**place, "title": f"{test.full_name}: {state(test)}"}
        shown = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        yield f"::error {shown}::{_data(_message(test))}"


def _message(test: TestRecord) -> str:
    stack = (f"{stack_words(test)}:", *elided(test.stack, test.stack_own, most=_FRAMES)) if test.stack else ()
    return "\n".join((*reasons(test), *stack)) or state(test)


def _data(text: str) -> str:
    """Escaped as the runner's own toolkit does: a percent sign and line ends."""
    return encodable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """A property also ends at a colon or a comma."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
