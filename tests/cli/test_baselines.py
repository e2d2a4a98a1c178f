"""``llmmem compare``, ``history``, ``merge`` and ``suggest``."""

import json
from pathlib import Path

from pytest_llmmem.baselines import file as store
from pytest_llmmem.baselines.values import Baseline
from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.core.records import SessionRecord, TestRecord
from tests.cli.conftest import Llmmem

ENVIRONMENT = {
    "platform": "linux",
    "machine": "x86_64",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "malloc": "default",
}


def report(name: str, peak_bytes: int, *more: int) -> Path:
    """A session of one test, run once or several times."""
    ram = Peak(
        baseline_bytes=0, peak_bytes=peak_bytes, peak_resident_bytes=peak_bytes, peak_file_bytes=0,
        absolute_peak_bytes=peak_bytes, error_bytes=0, method="kernel", interval_ms=2,
    )  # fmt: skip
    test = TestRecord(
        nodeid="test_a.py::test_it", outcome="passed", duration_s=1, ending=Ending(kind="completed"), ram=ram,
        run_peaks_bytes=(peak_bytes, *more) if more else (),
    )  # fmt: skip
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(SessionRecord(environment=ENVIRONMENT, tests=(test,)).to_json()), encoding="utf-8")
    return path


def test_growth_between_two_reports_is_status_1_and_goes_into_a_pull_request(llmmem: Llmmem) -> None:
    old, new = report("old.json", 100_000_000), report("new.json", 200_000_000)

    done = llmmem("compare", old, new, "--format=markdown")

    assert done.code == 1
    assert "| grew | 100 MB | 200 MB |" in done.out
    assert done.out.splitlines()[-1] == "1 grew"
    assert llmmem("compare", new, old).code == 0
    assert llmmem("compare", old, new, "--tolerance", "200MB").code == 0
    (compared,) = llmmem("compare", old, new, "--json").document["tests"]
    assert compared["verdict"] == "grew"
    assert compared["changes"][0] == {
        "of": "unreclaimable", "before_bytes": 100_000_000, "after_bytes": 200_000_000, "verdict": "grew",
    }  # fmt: skip


def test_history_names_the_step(llmmem: Llmmem) -> None:
    for number, size in enumerate((100, 101, 200, 199)):
        report(f"reports/run-{number}.json", size * 1_000_000)

    done = llmmem("history", "reports")

    assert done.code == 0
    assert "run-2 (+100 MB)" in done.out
    (trend,) = llmmem("history", "reports", "--json").document["trends"]
    assert [step["report"] for step in trend["steps"]] == ["run-2"]


def test_baselines_of_two_runners_become_one_file(llmmem: Llmmem) -> None:
    for name, machine in (("a.json", "linux-x86_64 cpu"), ("b.json", "linux-aarch64 cpu")):
        baseline = Baseline(
            peak_bytes=1, peak_resident_bytes=1, peak_file_bytes=0, error_bytes=0, resident_error_bytes=0
        )
        store.update(Path(name), machine, {"test_a.py::test_it": baseline})

    done = llmmem("merge", "a.json", "b.json", "--into", "all.json")

    assert done.code == 0
    assert set(store.read(Path("all.json")).machines) == {"linux-x86_64 cpu", "linux-aarch64 cpu"}


def test_reports_of_two_runners_become_one_that_compare_and_history_take(llmmem: Llmmem) -> None:
    for night, size in (("1", 100), ("2", 300)):
        report(f"{night}/bert/memory.json", 50_000_000)
        report(f"{night}/llama/memory.json", size * 1_000_000)
        done = llmmem(
            "merge", f"{night}/bert/memory.json", f"{night}/llama/memory.json", "-o", f"all/{night}.json",
            "-o", f"page/{night}.html", "-o", f"page/{night}.md",
        )  # fmt: skip
        assert (done.code, done.out, done.err) == (0, "bert: 1 test\nllama: 1 test\n", "")

    (grown, held) = llmmem("compare", "all/1.json", "all/2.json", "--json").document["tests"]
    trends = llmmem("history", "all", "--json").document["trends"]

    assert (grown["nodeid"], grown["verdict"]) == ("llama: test_a.py::test_it", "grew")
    assert (held["nodeid"], held["verdict"]) == ("bert: test_a.py::test_it", "held")
    assert [(trend["nodeid"], len(trend["steps"])) for trend in trends] == [(grown["nodeid"], 1), (held["nodeid"], 0)]
    assert "| llama |" in Path("page/2.md").read_text(encoding="utf-8")


def test_what_cannot_be_merged_is_one_sentence(llmmem: Llmmem) -> None:
    report("a.json", 1)
    store.update(Path("b.json"), "linux cpu", {})

    for arguments, complaint in (
        (("a.json",), "llmmem: --into: say where the merged report is to be written, such as -o all.json"),
        (("a.json", "b.json"), "llmmem: PART: some are reports and some are baselines files"),
        (("a.json", "-o", "all.txt"), "llmmem: --into: 'all.txt' has no ending that says what to write"),
        (("a.json", "a.json", "-o", "all.md"), "llmmem: PART: two reports have a cell 'a'"),
        (("none.json",), "llmmem: none.json: it cannot be read"),
    ):
        done = llmmem("merge", *arguments)

        assert done.code == 2
        assert done.err.startswith(complaint)


def test_a_tolerance_is_suggested_from_repeated_runs(llmmem: Llmmem) -> None:
    done = llmmem("suggest", report("runs.json", 100_000_000, 110_000_000, 103_000_000))

    assert done.code == 0
    assert done.out.startswith('--llm-tolerance="')
    assert '@pytest.mark.max_ram("' in done.out


def test_what_is_suggested_is_in_the_json_as_numbers(llmmem: Llmmem) -> None:
    report("runs.json", 100_000_000, 110_000_000, 103_000_000)
    report("random.json", 30_000_000, 90_000_000, 60_000_000)

    (calm,), (random,) = (llmmem("suggest", name, "--json").document["tests"] for name in ("runs.json", "random.json"))

    assert (calm["runs"], calm["of"], calm["tolerance"]) == (3, "unreclaimable", None)
    assert (calm["median_bytes"], calm["spread_bytes"]) == (103_000_000, 10_000_000)
    assert calm["budget"].startswith('@pytest.mark.max_ram("')
    assert (random["spread_bytes"], random["tolerance"]) == (60_000_000, "120MB")


def test_a_file_that_is_no_report_is_wrong_usage(llmmem: Llmmem) -> None:
    Path("other.json").write_text("{}", encoding="utf-8")

    done = llmmem("compare", "other.json", "other.json")

    assert done.code == 2
    assert done.err.startswith("llmmem: other.json: no report of ours")
    assert llmmem("compare", report("old.json", 1), "nowhere.json").code == 2
    assert llmmem("compare", "old.json", "old.json", "--tolerance", "much").err.startswith(
        "llmmem: --tolerance: 'much'"
    )
