"""The folder of results."""

import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.models.sources.source import parse_source
from pytest_llmmem.sweep.cells import Cell, cells_of
from pytest_llmmem.sweep.driver import Ended, Missing
from pytest_llmmem.sweep.jobs import Job
from pytest_llmmem.sweep.results import Results, has_begun
from pytest_llmmem.sweep.sweep_file import Environment, read_sweep_file
from tests.baselines.records import record, session
from tests.sweep.jobs import job

CELL = Cell(
    name="llama/default/new", label="llama", source="synthetic:tiny-llama", load="default",
    environment=Environment(name="new", python=sys.executable, variables={}),
)  # fmt: skip
JOB = job("cells/llama/default/new", arguments=("-c", "pass"), files={"a": "b"})


def ended(asked: Job = JOB, **result: Any) -> Ended:
    plain = {
        "exit_code": 0, "error": None, "timed_out": False, "report": None, "stdout": "", "stderr": "", "seconds": 2.0,
    }  # fmt: skip
    return Ended(job=asked, node="one", tries=1, result={**plain, **result})


def told(folder: Path, **result: Any) -> tuple[str, str]:
    results = Results(folder)
    results.keep(ended(**result))
    cell = results.summary(CELL, JOB)
    return cell.outcome, cell.sentence


def test_a_result_is_found_by_the_very_job_that_it_is_of(tmp_path: Path) -> None:
    results = Results(tmp_path)

    results.keep(ended())

    assert (results.load(JOB) or {})["node"] == "one"
    assert results.load(job("cells/llama/default/new", "other")) is None
    assert results.load(job("cells/none")) is None
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["new.json"]


def test_a_file_that_was_cut_off_is_no_result(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.keep(ended())
    (path,) = tmp_path.rglob("new.json")
    path.write_text(path.read_text()[:50])

    assert results.load(JOB) is None


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        ({"exit_code": 5}, "it ended with exit code 5 and without a report: nothing was printed"),
        ({"exit_code": -9, "stdout": "one\ntwo\n"}, "it ended with signal 9 and without a report: two"),
        ({"exit_code": 4, "stderr": "ERROR: no such option\nmore"}, "it ended with exit code 4 and without a report: no such option"),
        ({"exit_code": None, "error": "/x: No such file"}, "it could not be started: /x: No such file"),
        ({"exit_code": -9, "timed_out": True}, "it was ended after 60 s (cell_timeout)"),
        ({"exit_code": 1, "report": session(record()).to_json()}, "a test that ran outside of a worker failed"),
        ({"exit_code": 3, "report": session(record()).to_json()}, "pytest ended with exit code 3"),
        (
            {"exit_code": 1, "report": session(*(record(f"a.py::test_{name}", outcome="failed") for name in "ab")).to_json()},
            "test_a failed, and 1 more",
        ),
        (
            {"report": session(record(outcome="skipped", note="llm_load 'int8': needs bitsandbytes")).to_json()},
            "llm_load 'int8': needs bitsandbytes",
        ),
    ],
)  # fmt: skip
def test_a_cell_that_did_not_pass_says_why(tmp_path: Path, result: dict[str, Any], sentence: str) -> None:
    assert told(tmp_path, **result) == ("failed", sentence)


def test_a_cell_whose_tests_held_has_passed(tmp_path: Path) -> None:
    assert told(tmp_path, report=session(record()).to_json()) == ("passed", "")


def test_a_cell_without_a_result_is_in_the_record_with_the_reason(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.keep(Ended(job=JOB, node=None, tries=0, result=Missing(why="fits no node")))

    (cell,) = results.record([CELL], {CELL.name: JOB}).cells

    assert (cell.outcome, cell.sentence, cell.model) == ("missing", "fits no node", "llama")


def test_the_record_has_every_cells_tests_and_environment(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.keep(ended(report=session(record(peak=7)).to_json()))

    found = results.record([CELL], {CELL.name: JOB})

    assert [test.full_name for test in found.tests] == ["llama/default/new: tests/test_x.py::test_a"]
    assert found.environments[0]["name"] == "new"
    assert (found.cells[0].claim_bytes, found.cells[0].peak_bytes) == (JOB.memory_bytes, 107_000_000)


def test_only_a_session_that_never_came_to_its_tests_is_run_again() -> None:
    assert [has_begun(each.result) for each in (ended(), ended(exit_code=-11), ended(exit_code=1))] == [True] * 3  # type: ignore[arg-type]
    assert [has_begun(each.result) for each in (ended(exit_code=4), ended(error="gone"))] == [False] * 2  # type: ignore[arg-type]


def test_cells_have_names_that_are_paths_and_sources_that_do_not_hang_on_the_folder(tmp_path: Path) -> None:
    for folder in ("a/llama", "b/llama"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "sweep.toml").write_text(
        'models = ["a/llama", "b/llama", "synthetic:b/llama?shard=1GB", "org/name@main", "synthetic:tiny-llama"]'
    )

    cells = cells_of(read_sweep_file(tmp_path / "sweep.toml"))

    assert [cell.name for cell in cells] == [
        "llama/default/current", "llama-2/default/current", "llama-shard=1GB/default/current",
        "org/name@main/default/current", "tiny-llama/default/current",
    ]  # fmt: skip
    assert [cell.source for cell in cells] == [
        str(tmp_path / "a/llama"), str(tmp_path / "b/llama"), f"synthetic:{tmp_path / 'b/llama'}?shard=1GB",
        "org/name@main", "synthetic:tiny-llama",
    ]  # fmt: skip
    assert all(parse_source(cell.source, base=Path("/")).kind for cell in cells)
