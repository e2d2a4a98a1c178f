"""Earlier sweeps into the same folder: their reports are kept, and each cell knows its peaks in them."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pytest_llmmem.baselines.reading import read_report
from pytest_llmmem.core.records import CellRecord, EarlierCell, SessionRecord

REPORT: Final = "report.json"
"""A sweep that has ended has one."""

_FOLDER: Final = "earlier"
_RESULTS: Final = ("cells", "measured")
_MOST: Final = 100
"""Sweeps that a cell knows; the reports of older ones stay."""

Trend = Mapping[str, tuple[EarlierCell, ...]]
"""By the cell's name."""


def begin_again(folder: Path) -> None:
    """Keep the report of the sweep that has ended, and remove its results. A sweep that has not ended goes on."""
    report = folder / REPORT
    if not report.exists():
        return
    ended = datetime.fromtimestamp(report.stat().st_mtime, tz=UTC)
    # the report goes last: killed before that, the same command starts here again
    for name in _RESULTS:
        shutil.rmtree(folder / name, ignore_errors=True)
    kept = folder / _FOLDER
    kept.mkdir(exist_ok=True)
    report.replace(kept / f"{ended:%Y-%m-%dT%H-%M-%SZ}.json")


def read_trend(folder: Path) -> Trend:
    """The cells of the last sweep with all that those know of earlier ones; empty without one.

    Raises ``BaselineError`` when its report cannot be read.
    """
    newest = max(folder.joinpath(_FOLDER).glob("*.json"), default=None)
    if newest is None:
        return {}
    return {cell.name: _with(cell, newest.stem) for cell in read_report(newest).cells}


def with_trend(record: SessionRecord, trend: Trend) -> SessionRecord:
    """The record whose cells know the earlier ones."""
    return replace(record, cells=tuple(replace(cell, earlier=trend.get(cell.name, ())) for cell in record.cells))


def _with(cell: CellRecord, sweep: str) -> tuple[EarlierCell, ...]:
    own = EarlierCell(sweep=sweep, outcome=cell.outcome, peak_bytes=cell.peak_bytes)
    return (*cell.earlier, own)[-_MOST:]
