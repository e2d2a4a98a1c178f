"""One writer of tables, for a terminal and for Markdown; the cells are text already, of one line each."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

Align = Literal["left", "right"]


def text_table(rows: Iterable[Sequence[str]], *, align: Sequence[Align], gap: str = "  ") -> Iterator[str]:
    """The rows as lines with aligned columns, the header first; a column without any text takes no room."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(align))]
    for row in rows:
        cells = (
            cell.rjust(width) if side == "right" else cell.ljust(width)
            for cell, width, side in zip(row, widths, align, strict=True)
        )
        yield gap.join(cell for cell, width in zip(cells, widths, strict=True) if width).rstrip()


def markdown_table(rows: Iterable[Sequence[str]], *, align: Sequence[Align]) -> Iterator[str]:
    """The same as Markdown."""
    header, *others = rows
    yield f"| {' | '.join(header)} |"
    yield f"|{'|'.join('--:' if side == 'right' else '---' for side in align)}|"
    for row in others:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
