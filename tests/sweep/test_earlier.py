"""The trend over sweeps into one folder."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_llmmem.core.errors import BaselineError
from pytest_llmmem.core.records import CellRecord, EarlierCell, SessionRecord
from pytest_llmmem.sweep.earlier import REPORT, begin_again, read_trend, with_trend


def cell(name: str, peak: int | None, **fields: object) -> CellRecord:
    return CellRecord(**{"name": name, "outcome": "passed", "peak_bytes": peak, **fields})


def ended(folder: Path, *cells: CellRecord, at: int) -> None:
    """A sweep that has written its results and its report at a moment of the first of January 1970."""
    for name in ("cells", "measured"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "one.json").write_text("{}")
    record = with_trend(SessionRecord(environment={}, tests=(), cells=cells), read_trend(folder))
    (folder / REPORT).write_text(json.dumps(record.to_json()))
    os.utime(folder / REPORT, (at, at))


def test_each_sweep_knows_the_peaks_of_those_before_it(tmp_path: Path) -> None:
    ended(tmp_path, cell("a", 10), cell("b", None, outcome="missing"), at=60)
    begin_again(tmp_path)
    ended(tmp_path, cell("a", 20), cell("b", 5), at=120)
    begin_again(tmp_path)

    found = with_trend(
        SessionRecord(environment={}, tests=(), cells=(cell("a", 30), cell("new", 1))), read_trend(tmp_path)
    )

    a, new = found.cells
    assert a.earlier == (
        EarlierCell(sweep="1970-01-01T00-01-00Z", outcome="passed", peak_bytes=10),
        EarlierCell(sweep="1970-01-01T00-02-00Z", outcome="passed", peak_bytes=20),
    )
    assert new.earlier == ()
    assert read_trend(tmp_path)["b"][0] == EarlierCell(sweep="1970-01-01T00-01-00Z", outcome="missing")
    assert SessionRecord.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_beginning_again_leaves_the_earlier_reports_and_no_result(tmp_path: Path) -> None:
    ended(tmp_path, cell("a", 10), at=60)

    begin_again(tmp_path)

    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "earlier",
        "earlier/1970-01-01T00-01-00Z.json",
    ]


def test_a_sweep_that_has_not_ended_goes_on(tmp_path: Path) -> None:
    ended(tmp_path, cell("a", 10), at=60)
    (tmp_path / REPORT).unlink()

    begin_again(tmp_path)

    assert (tmp_path / "cells" / "one.json").exists()
    assert read_trend(tmp_path) == {}


def test_an_earlier_report_that_cannot_be_read_is_a_sentence_with_its_name(tmp_path: Path) -> None:
    ended(tmp_path, cell("a", 10), at=60)
    begin_again(tmp_path)
    (tmp_path / "earlier" / "1970-01-01T00-01-00Z.json").write_text("{")

    with pytest.raises(BaselineError, match=r"1970-01-01T00-01-00Z\.json"):
        read_trend(tmp_path)


def test_a_cell_knows_a_hundred_sweeps(tmp_path: Path) -> None:
    many = tuple(EarlierCell(sweep=str(number), outcome="passed", peak_bytes=number) for number in range(100))
    (tmp_path / "earlier").mkdir()
    record = SessionRecord(environment={}, tests=(), cells=(replace(cell("a", 7), earlier=many),))
    (tmp_path / "earlier" / "last.json").write_text(json.dumps(record.to_json()))

    (earlier,) = read_trend(tmp_path).values()

    assert (len(earlier), earlier[0].sweep, earlier[-1].peak_bytes) == (100, "1", 7)
