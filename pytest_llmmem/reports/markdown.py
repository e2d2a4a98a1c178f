"""The session as a page of Markdown: a headline, a table with the worst first, what is known of each failure.

Node ids and the like stand in code spans, prose is escaped: nothing that a test is called or raises becomes markup.
"""

import re
from collections.abc import Sequence
from typing import Final

from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.core.stacks import elided
from pytest_llmmem.reports.matrix import rows
from pytest_llmmem.reports.wording import (
    FAILURES,
    circumstances,
    encodable,
    headline,
    limit_words,
    reasons,
    share_words,
    stack_words,
    state,
    tightest,
    unit_beside,
    worst_first,
)

_LONG: Final = 200
"""Characters of a node id or of a line; what is beyond that is cut."""
_FRAMES: Final = 12
_REASONS: Final = 50
"""Maximum number of failed cells whose reason is shown."""
_MARKUP: Final = re.compile(r"([\\`*_\[\]<>|#~&!])")


def render(record: SessionRecord) -> str:
    """The whole session."""
    tests = worst_first(record.tests)
    failures = [account(test) for test in tests if test.outcome in FAILURES]
    blocks = (f"{prose(headline(record))}.", cells(record), table(tests), *failures, surroundings(record))
    return page("# Memory of isolated tests", *blocks)


def page(*blocks: str) -> str:
    """Blocks with an empty line between them, those that are empty left out."""
    return "\n\n".join(block for block in blocks if block) + "\n"


def cells(record: SessionRecord) -> str:
    """Cells of a merged record: each absolute peak, and the reason of each failure."""
    if not record.cells:
        return ""
    header, *body = ([prose(text).replace("|", "\\|") for text in row] for row in rows(record.cells))
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *body]
    told = [f"- {code(cell.name)}: {prose(cell.sentence)}" for cell in record.cells if cell.sentence]
    reasons = [*told[:_REASONS], *([f"- and {len(told) - _REASONS} more"] if len(told) > _REASONS else [])]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), *([""] if reasons else []), *reasons])


def table(tests: Sequence[TestRecord]) -> str:
    """One row for each test; numbers to the right."""
    if not tests:
        return ""
    head = ("| | test | unreclaimable | + files | budget | used | time |", "|---|---|--:|--:|--:|--:|--:|")
    return "\n".join((*head, *(f"| {' | '.join(_cells(test))} |" for test in tests)))


def _cells(test: TestRecord) -> tuple[str, ...]:
    budget = tightest(test.budgets)
    unit = unit_beside(budget)
    peak = format_size(test.ram.peak_bytes, unit) if test.ram else ""
    files = format_size(test.ram.peak_file_bytes, unit) if test.ram else ""
    limit = limit_words(budget) if budget else ""
    used = _share(budget) if budget else ""
    name = code(test.full_name).replace("|", "\\|")
    return prose(state(test)), name, peak, files, limit, used, f"{test.duration_s:.1f} s"


def _share(budget: Verdict) -> str:
    share = share_words(budget)
    return f"**{share}**" if share and not budget.held else share


def account(test: TestRecord) -> str:
    """The section of one test: state, reasons, notes, stack."""
    lines = "\n".join(f"- {prose(line)}" for line in (*reasons(test), *test.notes))
    blocks = (f"### {code(test.full_name)}", f"{prose(state(test))}.", lines, _stack(test))
    return "\n\n".join(block for block in blocks if block)


def _stack(test: TestRecord) -> str:
    if not test.stack:
        return ""
    frames = [_cut(frame) for frame in elided(test.stack, test.stack_own, most=_FRAMES)]
    fence = _fence("\n".join(frames), shortest=3)
    return "\n".join((f"{stack_words(test)}:", "", f"{fence}text", *frames, fence))


def surroundings(record: SessionRecord) -> str:
    """The environment, in one short line."""
    words = ", ".join(prose(f"{name} {value}") for name, value in circumstances(record.environment))
    return f"<sub>{words}</sub>" if words else ""


def code(text: str) -> str:
    """A code span of one line; a pipe in it is still a table's."""
    line = _cut(text)
    fence = _fence(line, shortest=1)
    gap = " " if "`" in line else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def prose(text: str) -> str:
    """A line of text in which no character is markup."""
    return _MARKUP.sub(r"\\\1", _cut(text))


def _cut(text: str) -> str:
    line = " ".join(encodable(text).split())
    return line if len(line) <= _LONG else f"{line[:_LONG]}…"


def _fence(text: str, *, shortest: int) -> str:
    """More backticks in a row than the text has."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(shortest, longest + 1)
