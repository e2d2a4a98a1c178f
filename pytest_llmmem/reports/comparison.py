"""Tables of what was before and after, for a terminal and as Markdown; the cells are text already."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

Format = Literal["text", "markdown"]

_NUMBERS: Final = {"before", "after", "difference", "reports", "first", "last", "change", "runs", "median", "spread"}
"""Columns that align to the right, by their heading; so does the nameless one after them, their share."""
_CODE: Final = {"test", "budget"}
"""Columns that Markdown shows as code."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, format: Format = "text") -> Iterator[str]:  # noqa: A002 -- named after the option
    """The lines of a table; none when it has no rows."""
    rows = [tuple(" ".join(cell.split("\n")) for cell in row) for row in rows]
    if rows:
        yield from _markdown(header, rows) if format == "markdown" else _text(header, rows)


def _text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    right = _to_the_right(header)
    for row in (header, *rows):
        cells = (
            f"{cell:>{width}}" if number else f"{cell:<{width}}"
            for cell, width, number in zip(row, widths, right, strict=True)
        )
        yield "  ".join(cell for cell, width in zip(cells, widths, strict=True) if width).rstrip()


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'|'.join('--:' if number else '---' for number in _to_the_right(header))}|"
    for row in rows:
        cells = (_code(cell) if name in _CODE else cell for name, cell in zip(header, row, strict=True))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _to_the_right(header: Sequence[str]) -> tuple[bool, ...]:
    before = ("", *header)
    return tuple(name in _NUMBERS or (not name and before[column] in _NUMBERS) for column, name in enumerate(header))


def _code(cell: str) -> str:
    """A code span; one around a backtick has two of them."""
    return f"`` {cell} ``" if "`" in cell else f"`{cell}`" if cell else ""
