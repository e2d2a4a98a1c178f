"""Tables of what was before and after, for a terminal and as Markdown; the cells are text already."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from pytest_llmmem.reports.tables import Align, markdown_table, text_table

Format = Literal["text", "markdown"]

_NUMBERS: Final = {"before", "after", "difference", "reports", "first", "last", "change", "runs", "median", "spread"}
"""Columns that align to the right, by their heading; so does the nameless one after them, their share."""
_CODE: Final = {"test", "budget"}
"""Columns that Markdown shows as code."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, format: Format = "text") -> Iterator[str]:  # noqa: A002 -- named after the option
    """The lines of a table; none when it has no rows."""
    rows = [tuple(" ".join(cell.split("\n")) for cell in row) for row in rows]
    if not rows:
        return
    align = _alignment(header)
    if format == "text":
        yield from text_table((header, *rows), align=align)
        return
    code = [name in _CODE for name in header]
    marked = (tuple(_code(cell) if is_code else cell for cell, is_code in zip(row, code, strict=True)) for row in rows)
    yield from markdown_table((header, *marked), align=align)


def _alignment(header: Sequence[str]) -> tuple[Align, ...]:
    before = ("", *header)
    numbers = (name in _NUMBERS or (not name and before[column] in _NUMBERS) for column, name in enumerate(header))
    return tuple("right" if is_number else "left" for is_number in numbers)


def _code(cell: str) -> str:
    """A code span; one around a backtick has two of them."""
    return f"`` {cell} ``" if "`" in cell else f"`{cell}`" if cell else ""
