"""The file is pleasant to review, reads back as it was written, and is refused with the line that is wrong."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given

from pytest_llmmem.baselines.document import parse, render
from pytest_llmmem.baselines.values import Baselines
from pytest_llmmem.core.errors import BaselineError
from tests.baselines.records import baseline, files

WHERE = Path("llm-baselines.json")
KEY = "linux-x86_64 torch2.13 transformers5.23 cpu"
FILE = Baselines(
    machines={
        KEY: {
            "tests/test_x.py::test_b": baseline(31.25, error=0.5, vram={"cuda:1": 5, "cuda:0": 2e3}),
            "tests/test_x.py::test_a[polyglot]": baseline(
                2670, file=20, phases={"setup": 22, "load": 17}, commit="abc1234", date="2026-10-03T08:00:00Z"
            ),
        }
    }
)
TEXT = """\
{
 "schema": 1,
 "machines": {
  "linux-x86_64 torch2.13 transformers5.23 cpu": {
   "tests/test_x.py::test_a[polyglot]": {
    "peak_bytes": [2670000000, "2.67 GB"],
    "peak_resident_bytes": [2690000000, "2.69 GB"],
    "peak_file_bytes": [20000000, "20.0 MB"],
    "error_bytes": [0, "0 B"],
    "phases": {
     "setup": [22000000, "22.0 MB"],
     "load": [17000000, "17.0 MB"]
    },
    "commit": "abc1234",
    "date": "2026-10-03T08:00:00Z"
   },
   "tests/test_x.py::test_b": {
    "peak_bytes": [31250000, "31.2 MB"],
    "peak_resident_bytes": [31250000, "31.2 MB"],
    "peak_file_bytes": [0, "0 B"],
    "error_bytes": [500000, "500 kB"],
    "peak_reserved_bytes": {
     "cuda:0": [2000000000, "2.00 GB"],
     "cuda:1": [5000000, "5.00 MB"]
    },
    "phases": {}
   }
  }
 }
}
"""


def test_it_is_sorted_with_a_line_for_each_number():
    assert render(FILE) == TEXT


@given(files)
def test_what_is_written_reads_back(file):
    kept = Baselines(machines={key: known for key, known in file.machines.items() if known})

    assert parse(render(file), where=WHERE) == kept
    assert json.loads(render(file))["schema"] == 1


def test_a_person_may_write_it_plainly():
    plain = json.dumps(json.loads(TEXT.replace('[31250000, "31.2 MB"]', "31250000")), indent=4)

    assert parse(plain, where=WHERE) == FILE


def test_the_bytes_count_and_newer_keys_are_passed_over():
    edited = TEXT.replace('"2.67 GB"', '"5 TB"').replace('"commit":', '"from_the_future": [1],\n"commit":')

    assert parse(edited, where=WHERE) == FILE


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"schema": 1', '"schema": 2', "line 2: schema 2, and this pytest-llmmem reads up to 1: upgrade it"),
        ('"schema": 1', '"schema": "1"', 'line 2: "1" is not a schema: it is 1'),
        ('"schema": 1', '"schema": 0', "line 2: 0 is not a schema"),
        ('[2670000000, "2.67 GB"]', "NaN", "line 6: NaN is not a size"),
        ("[2670000000,", "[-2670000000,", "line 6: -2670000000 is not a size, which is a whole number of bytes, 0 or more"),
        ("[22000000,", "[2.2e7,", "line 11: 22000000.0 is not a size"),
        ("[500000,", "[true,", "line 21: true is not a size"),
        ("[5000000,", "[1e999,", "line 24: Infinity is not a size"),
        ('[20000000, "20.0 MB"]', "[]", "line 8: [] is not a size"),
        ('[20000000, "20.0 MB"]', '{"a": 1}', 'line 8: {"a": 1} is not a size'),
        ('    "peak_file_bytes": [20000000, "20.0 MB"],\n', "", "line 5: tests/test_x.py::test_a[polyglot] has no peak_file_bytes"),
        ("test_b", "test_a[polyglot]", "line 17: 'tests/test_x.py::test_a[polyglot]' is there twice"),
        ('"load"', '"setup"', "line 12: 'setup' is there twice"),
        ('"machines": {', '"schema": 1, "machines": {', "line 3: 'schema' is there twice"),
        ('"phases": {}', '"phases": [1]', "line 26: [1] is not an object in braces"),
        ('"phases": {}', '"phases": {}, "spread_bytes": 5', "line 17: null is not a number of runs"),
        ('"phases": {}', '"phases": {},\n"spread_bytes": 5,\n "runs": 1', "line 28: 1 is not a number of runs"),
        ('"abc1234"', "7", "line 14: 7 is not a commit: it is text"),
        ("[2670000000,", "[2670000000", "line 6: half-written, or broken by hand (Expecting ',' delimiter)"),
        ('    "error_bytes": [0,', "<<<<<<< HEAD\n[0,", "line 9: a merge conflict: keep one side"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(old, new, complaint):
    assert old in TEXT

    with pytest.raises(BaselineError) as error:
        parse(TEXT.replace(old, new), where=WHERE)

    assert str(error.value).startswith(f"{WHERE} {complaint}")


@pytest.mark.parametrize("length", range(0, len(TEXT) - 2, 7))
def test_a_file_cut_anywhere_is_half_written(length):
    with pytest.raises(
        BaselineError, match=r"^llm-baselines.json(: it is empty| line \d+: half-written, or broken by hand)"
    ):
        parse(TEXT[:length], where=WHERE)


@pytest.mark.parametrize(
    ("text", "seems"),
    [
        ('{"schema": 1, "environment": {}, "tests": []}', "a report of --llm-report"),
        ('{"machine_info": {}, "benchmarks": []}', "a report of pytest-benchmark"),
        ('{"meta": {}, "files": {}, "totals": {}}', "a report of coverage"),
        ('{"metadata": {}, "weight_map": {}}', "the index of a checkpoint"),
        ("{}", "a file of something else"),
        ("[1]", "a bare list or value"),
    ],
)
def test_a_file_of_others_is_told_by_what_it_has(text, seems):
    with pytest.raises(BaselineError, match=f"no baselines file, it seems to be {seems}: name another file"):
        parse(text, where=WHERE)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema": ' + "1" * 5000 + "}"])
def test_what_json_cannot_bear_is_no_file_of_ours(text):
    with pytest.raises(BaselineError, match=r"^llm-baselines.json: no file of ours"):
        parse(text, where=WHERE)


def test_nobody_is_told_to_delete_a_file_that_is_none_of_ours():
    with pytest.raises(BaselineError, match=r"test_x.py line 1: .*: name the file of the baselines$"):
        parse("def test_x(): pass", where=Path("test_x.py"))


def test_an_error_of_its_own_is_kept_for_the_resident_peak():
    known = dataclasses.replace(baseline(100, error=1), resident_error_bytes=30)
    file = Baselines(machines={KEY: {"a.py::a": known, "a.py::b": baseline(100, error=1)}})

    text = render(file)

    assert text.count("resident_error_bytes") == 1
    assert parse(text, where=WHERE) == file
