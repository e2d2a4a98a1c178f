"""Reports are read back whole, and other files are told apart from them."""

import json
from pathlib import Path

import pytest

from pytest_llmmem.baselines.document import render
from pytest_llmmem.baselines.reading import line_of, read_report
from pytest_llmmem.baselines.values import Baselines
from pytest_llmmem.core.errors import BaselineError
from pytest_llmmem.reports import json as report
from tests.baselines.records import record, session

SESSION = session(record(peak=5, phases={"call": 5}, vram={"cuda:0": 7}))
DATA = SESSION.to_json()


def test_a_report_reads_back(tmp_path):
    path = tmp_path / "memory.json"
    path.write_text(report.render(SESSION))

    assert read_report(path) == SESSION


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", ": it is empty: name a JSON report of --llm-report"),
        ('{"schema": 1,\n "tests"', "line 2: half-written, or broken by hand"),
        ("<testsuites/>", "line 1: half-written, or broken by hand (Expecting value)"),
        (render(Baselines()), "no report of ours, it seems to be a baselines file: name a JSON report"),
        ("[]", "no report of ours, it seems to be a bare list or value"),
        (json.dumps(DATA | {"environment": 5}), "no report of ours, it seems to be a report of --llm-report"),
        (json.dumps(DATA | {"schema": 2}), "schema 2, and this pytest-llmmem reads up to 1: upgrade it"),
        (json.dumps(DATA | {"tests": [{}]}), "a report of ours, broken by hand"),
        (json.dumps(DATA | {"tests": ["x"]}), "a report of ours, broken by hand"),
        (json.dumps(DATA).replace('"peak_bytes": 5000000', '"peak_bytes": -5'), "-5 in tests/test_x.py::test_a is not a size"),
        (json.dumps(DATA).replace('"peak_bytes": 5000000', '"peak_bytes": NaN'), "nan in tests/test_x.py::test_a is not"),
        (json.dumps(DATA).replace('"peak_reserved_bytes": 7000000', '"peak_reserved_bytes": "7"'), "'7' in tests/test_x.py"),
        (json.dumps(DATA).replace('"run_peaks_bytes": []', '"run_peaks_bytes": [NaN, 1]'), "nan in tests/test_x.py::test_a is not"),
        (json.dumps(DATA).replace('"run_peaks_bytes": []', '"run_peaks_bytes": [true, 1]'), "True in tests/test_x.py::test_a"),
        (json.dumps(DATA).replace('"nodeid": "tests/test_x.py::test_a"', '"nodeid": 5'), "5 is not a node id, which is text"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_file(tmp_path, text, complaint):
    path = tmp_path / "memory.json"
    path.write_text(text)

    with pytest.raises(BaselineError) as error:
        read_report(path)

    assert str(error.value).startswith(str(path))
    assert complaint in str(error.value)


@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="needs a device file")
def test_a_device_is_not_read_without_end():
    with pytest.raises(BaselineError, match=r"[/\\]dev[/\\]zero: it is a device: name a file"):
        read_report(Path("/dev/zero"))


def test_a_line_is_found_by_the_keys_that_lead_to_it():
    text = '{\n"a": {"x": 1},\n"b": {\n "x": "a",\n "x": 2}}'

    assert line_of(text, ("a", "x")) == 2
    assert line_of(text, ("b", "x")) == 4
    assert line_of(text, ("b", "x"), again=True) == 5
    assert line_of(text, ("b", "not there")) == 3
    assert line_of(text, ()) == 1
