"""A trend tells where a test left its level, quickly or slowly."""

import pytest

from pytest_llmmem.baselines.history import HEADER, read_reports, trends
from pytest_llmmem.baselines.tolerance import parse_tolerance
from pytest_llmmem.core.errors import BaselineError
from pytest_llmmem.reports import json as report
from tests.baselines.records import record, session

TOLERANCE = parse_tolerance("5% + 16MB")


def of(*peaks: float, **known: object):
    return trends([(f"run-{n}", session(record(peak=peak, **known))) for n, peak in enumerate(peaks)], TOLERANCE)


@pytest.mark.parametrize(
    ("peaks", "steps"),
    [
        ((100, 101, 99, 100), []),
        ((100, 101, 500, 501), ["run-2 (+400 MB)"]),
        ((100, 500, 100), ["run-1 (+400 MB)", "run-2 (-400 MB)"]),
        ((100, 110, 120, 130, 140), ["run-3 (+30.0 MB)"]),
        ((100,), []),
    ],
)
def test_the_step_is_where_the_level_was_left(peaks, steps):
    (trend,) = of(*peaks)

    assert [str(step) for step in trend.steps] == steps


def test_the_errors_of_measuring_make_no_step():
    assert of(100, 140, error=10)[0].steps == ()
    assert len(of(100, 140)[0].steps) == 1


def test_a_row_has_a_cell_for_each_heading():
    (trend,) = of(2670, 2671, 3100)

    assert dict(zip(HEADER, trend.row(), strict=True)) == {
        "reports": "3", "first": "2670 MB", "last": "3100 MB", "change": "+16%", "of": "unreclaimable",
        "changed at": "run-2 (+430 MB)", "test": "tests/test_x.py::test_a",
    }  # fmt: skip


def test_machines_and_devices_have_trends_of_their_own_and_what_changed_is_first():
    reports = [
        ("1", session(record("a", 10), record("b", 10, vram={"cuda:0": 10}))),
        ("2", session(record("a", 900))),
        ("3", session(record("a", 900), record("b", 500, vram={"cuda:0": 11}))),
        ("4", session(record("b", 20, kind="crashed", phase="call", outcome="failed"), record("b", 10))),
    ]

    found = trends(reports, TOLERANCE)

    assert [(trend.machine.split()[-1], trend.nodeid, trend.measure, len(trend.points)) for trend in found] == [
        ("cpu", "a", "unreclaimable", 1),
        ("cuda", "a", "unreclaimable", 2),
        ("cuda", "b", "unreclaimable", 2),
        ("cuda", "b", "vram cuda:0", 2),
    ]
    assert [bool(trend.steps) for trend in found] == [False, True, True, False]


def test_reports_come_in_the_order_of_the_numbers_in_their_names(tmp_path):
    for name in ("run-10", "run-9", "other", "run-9b"):
        (tmp_path / f"{name}.json").write_text(report.render(session(record(peak=5))))
    (tmp_path / "notes.txt").touch()
    (tmp_path / "run-9.trace.json").write_text('{"traceEvents": []}')

    assert [name for name, _ in read_reports(tmp_path)] == ["other", "run-9", "run-9b", "run-10"]


def test_a_folder_without_reports_or_with_another_file_is_refused(tmp_path):
    with pytest.raises(BaselineError, match=r"no \*.json in it"):
        read_reports(tmp_path)
    (tmp_path / "llm-baselines.json").write_text('{"schema": 1, "machines": {}}')
    with pytest.raises(BaselineError, match="it seems to be a baselines file"):
        read_reports(tmp_path)
