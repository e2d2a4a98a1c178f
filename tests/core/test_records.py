"""Records round-trip through JSON, and the promised keys are there to the letter."""

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.records import SessionRecord, TestRecord

PROMISED = {
    "nodeid", "outcome", "duration_s", "ending", "ram", "vram", "phases", "budgets", "model",
}  # fmt: skip


def records() -> st.SearchStrategy[TestRecord]:
    return st.from_type(TestRecord)


@given(records())
def test_a_record_survives_json(record: TestRecord) -> None:
    again = TestRecord.from_json(json.loads(json.dumps(record.to_json())))

    assert json.dumps(again.to_json()) == json.dumps(record.to_json())


@given(records())
def test_the_promised_keys_are_there(record: TestRecord) -> None:
    data = record.to_json()

    assert data.keys() >= PROMISED
    assert data["ending"].keys() >= {"kind", "signal", "exit_code", "phase"}
    if data["ram"] is not None:
        assert data["ram"].keys() == {
            "baseline_bytes", "peak_bytes", "peak_resident_bytes", "peak_file_bytes", "absolute_peak_bytes",
            "error_bytes", "resident_error_bytes", "method", "interval_ms",
        }  # fmt: skip


def test_a_newer_reports_unknown_keys_are_passed_over() -> None:
    session = SessionRecord.from_json({"schema": 1, "environment": {}, "tests": [], "from_the_future": 1})

    assert session.tests == ()


MERGED = {
    "schema": 1,
    "environment": {"python": "3.11"},
    "environments": [{"gpu": "none"}, {"gpu": "L4"}],
    "cells": [{"name": "tiny in fp16", "outcome": "passed"}],
    "interrupted": None,
    "tests": [],
}


def test_a_merged_record_survives_json_and_a_single_one_has_no_cells() -> None:
    merged = SessionRecord.from_json(MERGED)

    assert merged.to_json().keys() == MERGED.keys()
    assert SessionRecord.from_json(merged.to_json()) == merged
    assert replace(merged, cells=()).to_json().keys() == {"schema", "environment", "interrupted", "tests"}


def test_a_test_of_a_merged_record_has_its_cells_name_and_environment() -> None:
    alone = TestRecord(
        nodeid="test_x.py::test_load", outcome="passed", duration_s=1.0, ending=Ending(kind="completed"), ram=None
    )
    of_a_cell = replace(alone, cell="tiny in fp16", environment=1)
    merged = SessionRecord.from_json(MERGED)

    assert [each.full_name for each in (alone, of_a_cell)] == [
        "test_x.py::test_load",
        "tiny in fp16: test_x.py::test_load",
    ]
    assert [merged.environment_of(each) for each in (alone, of_a_cell)] == [{"python": "3.11"}, {"gpu": "L4"}]
