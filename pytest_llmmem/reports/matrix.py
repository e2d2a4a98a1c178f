"""The cells of a merged record as a table: a row for each model, a column for each load in each environment."""

from collections.abc import Sequence
from typing import Final

from pytest_llmmem.core.records import CellRecord
from pytest_llmmem.core.sizes import format_size

_SIGNS: Final = {"passed": "✓", "failed": "✕", "missing": "?"}


def rows(cells: Sequence[CellRecord]) -> list[tuple[str, ...]]:
    """The header and a row for each model; a model without a cell in a column has an empty text there."""
    columns = list(dict.fromkeys(map(_column, cells)))
    models = list(dict.fromkeys(map(_row, cells)))
    texts: dict[tuple[str, str], str] = {}
    for cell in cells:
        place = _row(cell), _column(cell)
        texts[place] = ", ".join(filter(None, (texts.get(place), _text(cell))))
    return [
        ("model", *columns),
        *((model, *(texts.get((model, column), "") for column in columns)) for model in models),
    ]


def _row(cell: CellRecord) -> str:
    return cell.model or cell.name


def _column(cell: CellRecord) -> str:
    return " · ".join(filter(None, (cell.environment, cell.load))) or "all"


def _text(cell: CellRecord) -> str:
    peak = f" {format_size(cell.peak_bytes)}" if cell.peak_bytes is not None else ""
    return f"{_SIGNS[cell.outcome]}{peak}"
