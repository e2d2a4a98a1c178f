"""``llmmem sweep``: whole sweeps on this machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Done, Llmmem
from tests.conftest import needs

pytestmark = needs("torch", "transformers")

TESTS = """
import os

def test_reads(model_checkpoint):
    assert model_checkpoint.parameters

def test_crashes(loaded_model):
    if loaded_model.load == "float16":
        os.abort()
"""


def write(loads: str = '["default", "float16"]', more: str = "") -> None:
    Path("test_zoo.py").write_text(TESTS, encoding="utf-8")
    Path("sweep.toml").write_text(
        f'models = ["synthetic:tiny-llama"]\nloads = {loads}\ntests = ["test_zoo.py"]\n{more}', encoding="utf-8"
    )


def cells(done: Done) -> dict[str, Any]:
    return {cell["name"]: cell for cell in done.document["cells"]}


def test_a_crash_is_its_cells_result_and_nothing_is_run_twice_unless_the_file_has_changed(llmmem: Llmmem) -> None:
    write()

    first = llmmem("sweep")
    files = {path: path.stat().st_mtime_ns for path in Path("results/cells").rglob("*.json")}
    again = llmmem("sweep", "--json")

    assert (first.code, again.code) == (1, 1)
    assert "2 cells, 0 with a result" in first.out
    assert "[2/2]" in first.out
    assert len(files) == 2
    assert {path: path.stat().st_mtime_ns for path in Path("results/cells").rglob("*.json")} == files
    found = cells(again)
    assert found["tiny-llama/default/current"]["outcome"] == "passed"
    crashed = found["tiny-llama/float16/current"]
    assert crashed["outcome"] == "failed"
    assert crashed["sentence"].startswith("test_crashes failed: crashed SIGABRT in call")
    assert crashed["peak_bytes"] < crashed["claim_bytes"]
    record = json.loads(Path("results/report.json").read_text(encoding="utf-8"))
    assert sorted(test["cell"] for test in record["tests"]) == [
        "tiny-llama/default/current",
        "tiny-llama/float16/current",
    ]
    assert record["environments"][0]["name"] == "current"
    assert "| tiny-llama | ✓" in Path("results/summary.md").read_text(encoding="utf-8")
    assert "tiny-llama/float16/current" in Path("results/report.html").read_text(encoding="utf-8")

    write('["default"]', "timeout = 30")
    assert "1 cells, 0 with a result" in llmmem("sweep").out


def test_a_sweep_again_runs_every_cell_anew_and_its_cells_know_the_one_before(llmmem: Llmmem) -> None:
    write('["default"]')

    first = llmmem("sweep", "--json")
    second = llmmem("sweep", "--again", "--json")

    (before,), (cell,) = cells(first).values(), cells(second).values()
    (earlier,) = cell["earlier"]
    assert before["earlier"] == []
    assert earlier["peak_bytes"] == before["peak_bytes"]
    assert f"results/earlier/{earlier['sweep']}.json" in map(str, Path("results").rglob("*.json"))
    assert llmmem("history", "results/earlier").code == 0
    assert "[1/1]" not in llmmem("sweep").out
    assert llmmem("sweep", "--again", "--dry-run").err.startswith("llmmem: --again and --dry-run")


def test_what_cannot_run_is_a_result_that_says_so(llmmem: Llmmem) -> None:
    write('["default"]', "memory = '900TB'\n[env.here]\n[env.gone]\npython = 'gone/bin/python'\n")

    plan = llmmem("sweep", "--dry-run")
    done = llmmem("sweep", "--json")

    assert plan.code == 0
    assert "fits no node" in plan.out
    assert "cannot run" in plan.out
    assert done.code == 1
    found = cells(done)
    assert {cell["outcome"] for cell in found.values()} == {"missing"}
    assert found["tiny-llama/default/here"]["sentence"].startswith("fits no node: it needs 900 TB, 1 CPUs")
    assert "gone/bin/python: No such file or directory" in found["tiny-llama/default/gone"]["sentence"]


def test_a_model_that_is_broken_fails_its_cell_and_no_other(llmmem: Llmmem) -> None:
    Path("broken").mkdir()
    Path("broken/config.json").write_text("{}", encoding="utf-8")
    Path("sweep.toml").write_text(
        'models = ["./broken", "synthetic:tiny-llama"]\nchecks = ["integrity"]', encoding="utf-8"
    )

    done = llmmem("sweep", "--json")

    assert done.code == 1
    assert {name: cell["outcome"] for name, cell in cells(done).items()} == {
        "broken/default/current": "failed",
        "tiny-llama/default/current": "passed",
    }
    assert cells(done)["broken/default/current"]["sentence"].startswith("test_integrity error: ")


def test_a_test_that_needs_more_than_was_predicted_is_stopped_by_its_own_guard(llmmem: Llmmem) -> None:
    write('["default"]')
    Path("test_zoo.py").write_text("def test_grows(loaded_model):\n    held = bytearray(10**9)\n", encoding="utf-8")

    done = llmmem("sweep", "--json")

    (cell,) = cells(done).values()
    assert cell["sentence"].startswith("test_grows failed: over budget in call: max_ram is ")
    (test,) = json.loads(Path("results/report.json").read_text(encoding="utf-8"))["tests"]
    assert test["ending"]["kind"] == "over_budget"
    assert any("test_zoo.py" in frame for frame in test["stack"])


def test_wrong_usage_is_one_line_and_status_2(llmmem: Llmmem, monkeypatch: pytest.MonkeyPatch) -> None:
    write("['flaot16']".replace("'", '"'))
    Path("bad.toml").write_text("models = []", encoding="utf-8")
    Path("file").touch()

    for arguments, complaint in (
        (("nope.toml",), "llmmem: nope.toml: it cannot be read"),
        (("bad.toml",), "llmmem: bad.toml line 1: models:"),
        (("--init",), "llmmem: sweep.toml: it is there already"),
        (("--out", "file"), "llmmem: --out file: it cannot be written"),
    ):
        done = llmmem("sweep", *arguments)

        assert done.code == 2
        assert done.err.startswith(complaint)
