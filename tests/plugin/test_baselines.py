"""``--llm-baseline-update``, ``--llm-baseline``, ``--llm-tolerance``, ``--llm-repeat`` and ``llm_baseline``."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, needs

TESTS = """
    import pytest

    @pytest.mark.in_worker
    def test_grows(): held = bytearray({grows})

    @pytest.mark.in_worker
    def test_stays(): held = bytearray(50_000_000)

    @pytest.mark.in_worker
    @pytest.mark.llm_baseline(tolerance="200MB")
    def test_may_grow(): held = bytearray({grows})
"""


@needs("a kept peak of memory")
def test_growth_beyond_the_tolerance_fails_and_names_both_numbers(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    source = TESTS.format(grows=100_000_000)
    written = run(source, "--llm-baseline-update")
    written.result.assert_outcomes(passed=3)
    written.result.stdout.fnmatch_lines(["llm-baselines.json: *: 3 written, 0 kept*"])

    same = run(source)
    same.result.assert_outcomes(passed=3)
    assert {test.baseline.verdict for test in same.record.tests if test.baseline} == {"held"}

    grown = run(TESTS.format(grows=200_000_000))
    grown.result.assert_outcomes(passed=2, failed=1)
    baseline = grown["test_grows"].baseline
    assert baseline is not None
    assert baseline.verdict == "grew"
    assert grown["test_grows"].outcome == "failed"
    grown.result.stdout.fnmatch_lines(["baseline is 10? MB, used 20? MB unreclaimable: * MB more, most of it in call*"])

    shrunk = run(TESTS.format(grows=20_000_000))
    shrunk.result.assert_outcomes(passed=3)
    shrunk.result.stdout.fnmatch_lines(
        ["*test_grows: baseline is * MB, used * MB*--llm-baseline-update keeps the gain"]
    )


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (["test_two.py::test_a"], ""),
        (["--lf"], "import pathlib; assert pathlib.Path(__file__).with_name('mended').exists()"),
        (["test_other.py"], ""),
        ([], "if number == 'b': pytest.skip()"),
    ],
    ids=["one test", "what failed last", "one file", "one skipped"],
)
def test_an_update_of_a_part_removes_no_other_baseline(
    pytester: pytest.Pytester, arguments: list[str], changed: str
) -> None:
    source = """
        import pytest
        pytestmark = pytest.mark.in_worker
        def test_a(): pass
        @pytest.mark.parametrize("number", {numbers})
        def test_model(number): {body}
    """
    pytester.makepyfile(test_two=source.format(numbers="['a', 'b']", body="pass"))
    pytester.makepyfile(test_other="import pytest\n@pytest.mark.in_worker\ndef test_other(): pass")
    pytester.runpytest_subprocess("--llm-baseline-update")
    before = baseline_ids(pytester)
    pytester.makepyfile(test_two=source.format(numbers="['b']", body=changed or "pass"))
    pytester.runpytest_subprocess()
    pytester.path.joinpath("mended").touch()

    pytester.runpytest_subprocess("--llm-baseline-update", *arguments)

    assert len(before) == 4
    assert baseline_ids(pytester) == before


def test_a_baseline_goes_with_its_test_and_is_named(pytester: pytest.Pytester) -> None:
    source = "import pytest\n@pytest.mark.in_worker\ndef {name}(): pass\n@pytest.mark.in_worker\ndef test_stays(): pass"
    pytester.makepyfile(test_x=source.format(name="test_goes"))
    pytester.runpytest_subprocess("--llm-baseline-update")
    pytester.makepyfile(test_x=source.format(name="test_comes"))

    ran = pytester.runpytest_subprocess("--llm-baseline-update")

    ran.stdout.fnmatch_lines(["*, 1 removed with their tests", "*: removed: test_x.py::test_goes"])
    assert baseline_ids(pytester) == ["test_x.py::test_comes", "test_x.py::test_stays"]


def baseline_ids(pytester: pytest.Pytester) -> list[str]:
    (machine,) = json.loads(Path(pytester.path, "llm-baselines.json").read_text(encoding="utf-8"))["machines"].values()
    return sorted(machine)


@needs("a kept peak of memory")
def test_an_update_keeps_what_is_within_the_tests_own_tolerance(run: Callable[..., Run]) -> None:
    run(TESTS.format(grows=100_000_000), "--llm-baseline-update")

    updated = run(TESTS.format(grows=200_000_000), "--llm-baseline-update")

    updated.result.stdout.fnmatch_lines(["llm-baselines.json: *: 1 written, 2 kept as they were, *"])


def test_an_expected_failure_has_no_whole_peak(run: Callable[..., Run]) -> None:
    source = "import pytest\n@pytest.mark.in_worker\n@pytest.mark.xfail\ndef test_it(): raise ValueError"

    ran = run(source, "--llm-baseline-update")

    ran.result.stdout.fnmatch_lines(["llm-baselines.json: no isolated test ran to its end, so nothing was written"])


def test_a_report_does_not_replace_the_baselines(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    source = "import pytest\n@pytest.mark.in_worker\ndef test_it(): pass"
    run(source, "--llm-baseline-update")

    ran = run(source, "--llm-report=llm-baselines.json")

    assert ran.result.ret == pytest.ExitCode.USAGE_ERROR
    ran.result.stderr.fnmatch_lines(
        ["ERROR: --llm-report: 'llm-baselines.json' is the file of the baselines: name another one"]
    )
    assert baseline_ids(pytester)


@needs("git")
def test_a_commit_that_was_changed_since_is_dirty(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    source = "import pytest\n@pytest.mark.in_worker\ndef test_it(): pass"
    pytester.makepyfile(test_kept=source)
    for command in (
        ["init", "-q"],
        ["add", "test_kept.py"],
        ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c"],
    ):
        subprocess.run(["git", *command], cwd=pytester.path, check=True)
    pytester.makepyfile(test_kept=f"{source}  # changed")

    run(source, "--llm-baseline-update")

    (machine,) = json.loads(Path(pytester.path, "llm-baselines.json").read_text(encoding="utf-8"))["machines"].values()
    assert all(entry["commit"].endswith("-dirty") for entry in machine.values())


def test_growth_is_no_broken_budget_for_xfail(run: Callable[..., Run]) -> None:
    source = """
        import pytest
        from pytest_llmmem import BaselineExceeded, BudgetExceeded
        @pytest.mark.max_ram("1GB")
        @pytest.mark.xfail(raises=BudgetExceeded)
        def test_budget(): held = bytearray({grows})
        @pytest.mark.max_ram("1GB")
        @pytest.mark.xfail(raises=BaselineExceeded)
        def test_baseline(): held = bytearray({grows})
    """
    run(source.format(grows=100_000_000), "--llm-baseline-update")

    grown = run(source.format(grows=200_000_000))

    grown.result.assert_outcomes(failed=1, xfailed=1)
    assert grown["test_budget"].outcome == "failed"


def test_a_test_without_a_baseline_is_a_message(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    run("import pytest\n@pytest.mark.in_worker\ndef test_a(): pass", "--llm-baseline-update")
    ran = run("import pytest\n@pytest.mark.in_worker\ndef test_b(): pass")

    ran.result.assert_outcomes(passed=1)
    ran.result.stdout.fnmatch_lines(
        ["1 without a baseline: --llm-baseline-update writes them", "*test_b has no baseline, and *test_a has one*"]
    )


@needs("a kept peak of memory")
def test_repeated_runs_give_a_median_and_a_spread(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    ran = run(
        """
        import pathlib, pytest

        @pytest.mark.in_worker
        def test_it(request):
            counter = pathlib.Path(request.config.rootpath, "counter")
            runs = int(counter.read_text()) if counter.exists() else 0
            counter.write_text(str(runs + 1))
            held = bytearray([100_000_000, 130_000_000, 110_000_000][runs])
        """,
        "--llm-repeat=3", "--llm-baseline-update",
    )  # fmt: skip

    ran.result.assert_outcomes(passed=1)
    record = ran["test_it"]
    assert [round(peak / 1e7) for peak in record.run_peaks_bytes] == [10, 13, 11]
    assert record.ram is not None
    assert round(record.ram.peak_bytes / 1e7) == 11
    (machine,) = json.loads(Path(pytester.path, "llm-baselines.json").read_text(encoding="utf-8"))["machines"].values()
    (entry,) = machine.values()
    assert entry["runs"] == 3
    assert round(entry["spread_bytes"][0] / 1e7) == 3


def test_workers_of_xdist_share_the_baselines(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    source = TESTS.format(grows=100_000_000)
    run(source, "--llm-baseline-update", "-n", "2").result.stdout.fnmatch_lines(["*3 written, 0 kept*"])

    grown = run(TESTS.format(grows=200_000_000), "-n", "2")

    grown.result.assert_outcomes(passed=2, failed=1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "*llm-baselines.json*"),
        ('{"schema": 99, "machines": {}}', "*schema 99*"),
        ('{"schema": 1, "environment": {}, "tests": []}', "*no baselines file, it seems to be a report*"),
    ],
)
def test_an_unusable_file_stops_the_run_before_any_test(
    run: Callable[..., Run], pytester: pytest.Pytester, text: str, complaint: str
) -> None:
    Path(pytester.path, "llm-baselines.json").write_text(text, encoding="utf-8")

    ran = run("import pytest\n@pytest.mark.in_worker\ndef test_a(): raise SystemExit('it ran')")

    assert ran.result.ret == pytest.ExitCode.USAGE_ERROR
    ran.result.stderr.fnmatch_lines([complaint])
    assert "it ran" not in ran.text


@pytest.mark.parametrize("there", [True, False], ids=["with baselines", "without"])
def test_a_marker_that_cannot_be_used_fails_its_test_alone(
    run: Callable[..., Run], pytester: pytest.Pytester, *, there: bool
) -> None:
    if there:
        run("import pytest\n@pytest.mark.in_worker\ndef test_a(): pass", "--llm-baseline-update")
    ran = run(
        """
        import pytest
        @pytest.mark.in_worker
        @pytest.mark.llm_baseline(tolerance="x")
        def test_bad(): pass
        @pytest.mark.llm_baseline(only=["x"])
        def test_worse(): pass
        @pytest.mark.in_worker
        def test_good(): pass
        """
    )

    ran.result.assert_outcomes(passed=1, failed=2)
    ran.result.stdout.fnmatch_lines(["llm_baseline: 'x' is not a tolerance*"])
