"""Records round-trip through JSON, and the promised keys are there to the letter."""

import json

from hypothesis import given
from hypothesis import strategies as st

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
