"""Every setting on each of its surfaces, and each mistake as one clear error."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest

from pytest_llmmem.plugin import step_markers  # noqa: F401 -- its classes are among Marker's subclasses
from pytest_llmmem.plugin.markers import Marker
from pytest_llmmem.plugin.options import MARKERS, OPTIONS
from tests.conftest import Run, needs


def test_help_and_markers_list_everything(pytester: pytest.Pytester) -> None:
    help_text = pytester.runpytest_subprocess("--help").stdout.str()
    markers = pytester.runpytest_subprocess("--markers").stdout.str()

    for option in OPTIONS:
        assert option.flag in help_text
        assert option.ini in help_text
    assert "@pytest.mark.max_ram(limit, *, count='unreclaimable', on_breach=None, enforce=None, per=None): " in markers
    assert "@pytest.mark.in_worker(*, scope='function', timeout=None, ranks=None): " in markers


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--llm-timeout=abc"], "--llm-timeout: 'abc' is not a timeout: write seconds above zero, like 30 or 0.5"),
        (["--llm-max-ram=8GBB"], "--llm-max-ram: '8GBB' is not a limit (cannot read '8GBB'): write *"),
        (["--llm-reserve=much"], "--llm-reserve: 'much' is not a memory size: write a number and a unit, *"),
        (
            ["--llm-report=out.xyz"],
            "--llm-report: 'out.xyz' has no ending that says what to write: use one of trace.json, .json, .html, .md",
        ),
        (["--llm-report=test_it.py/out.json"], "--llm-report: 'test_it.py/out.json' cannot be written: *"),
        (["--llm-model=./nowhere"], "--llm-model=./nowhere: *"),
        (["--llm-model=synthetic:nothing"], "--llm-model=synthetic:nothing: there is no preset 'nothing' *"),
        (
            ["--llm-baseline=nofile.json", "--llm-isolate=all"],
            "--llm-baseline: there is no *nofile.json: name the file *",
        ),
        (
            ["--llm-reserve=100TB", "--llm-isolate=all"],
            "--llm-reserve: 100 TB cannot stay free of the * that there are: *",
        ),
        (
            ["--llm-baseline-update", "--llm-isolate=none"],
            "--llm-baseline-update: baselines are of isolated tests, and --llm-isolate=none isolates none: leave one of them out",
        ),
        (
            ["--llm-baseline-update", "--pdb"],
            "--llm-baseline-update: baselines are of isolated tests, and --pdb isolates none: leave one of them out",
        ),
        (["-o", "llm_isolate=some"], "ini llm_isolate: 'some' is not one of marked, all, none"),
    ],
)
def test_a_mistake_in_the_configuration_stops_the_session_with_one_line(
    pytester: pytest.Pytester, arguments: list[str], error: str
) -> None:
    pytester.makepyfile(test_it="def test_it(): pass")

    result = pytester.runpytest_subprocess(*arguments)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {error}", "*"])
    assert "Traceback" not in result.stderr.str()


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("trace.json", '{"displayTimeUnit":"ms",'),
        ("load.trace.json", '{"displayTimeUnit":"ms",'),
        ("report.json", '{\n "schema": 1,'),
        ("report.html", "<!doctype html>"),
        ("summary.md", "# Memory of isolated tests\n"),
    ],
)
def test_the_ending_of_a_report_says_its_format(
    run: Callable[..., Run], tmp_path: Path, name: str, beginning: str
) -> None:
    run("import pytest\n@pytest.mark.in_worker\ndef test_it(): pass", f"--llm-report={tmp_path / name}")

    assert (tmp_path / name).read_text(encoding="utf-8").startswith(beginning)


@needs("huggingface_hub")
def test_a_hub_id_without_network_is_one_error_for_many_tests(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytester.makepyfile("def test_1(loaded_model): pass\ndef test_2(loaded_model): pass")

    result = pytester.runpytest_subprocess("--llm-model=nobody/nothing")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str() + result.stderr.str()
    assert text.count("--llm-model=nobody/nothing") == 1


@pytest.mark.parametrize(
    ("marker", "complaint"),
    [
        ("max_ram('8GBB')", "max_ram: '8GBB' is not a limit *"),
        ("max_ram()", "max_ram: missing a required argument: 'limit': write max_ram(limit, *"),
        ("max_ram('1GB', kount=1)", "max_ram: got an unexpected keyword argument 'kount': write *"),
        ("max_ram('1GB', count='all')", "max_ram: count='all' is not one of 'unreclaimable', 'resident'"),
        ("max_ram('1GB', on_breach='die')", "max_ram: on_breach='die' is not one of 'finish', 'stop'"),
        ("max_ram('weights')", "max_ram: 'weights' is in terms of a checkpoint, and this test has none: *"),
        ("max_ram('50% device')", "max_ram: '50% device' is a share of a GPU: *"),
        ("in_worker(timeout=-1)", "in_worker: -1 is not a timeout: *"),
        ("in_worker(scope='world')", "in_worker: scope='world' is not one of *"),
    ],
)
def test_a_mistake_in_a_marker_fails_that_test_and_no_other(
    run: Callable[..., Run], marker: str, complaint: str
) -> None:
    ran = run(
        f"""
        import pytest
        @pytest.mark.{marker}
        def test_it(): pass
        @pytest.mark.in_worker
        def test_other(): pass
        """
    )

    ran.result.assert_outcomes(failed=1, passed=1)
    ran.result.stdout.fnmatch_lines([complaint])
    record = ran["test_it"]
    assert (record.outcome, record.ending.kind, record.ram) == ("failed", "raised", None)
    assert fnmatch(str(record.ending.error), f"Failed: {complaint.rstrip('*')}*")


@needs("a kept peak of memory")
def test_ini_values_are_honoured_and_the_command_line_wins(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nllm_isolate = all\nllm_max_ram = 10MB\nllm_timeout = 30")
    source = "def test_it(): b'x' * 18_000_000"

    assert run(source)["test_it"].outcome == "failed"
    assert run(source, "--llm-max-ram=50MB")["test_it"].outcome == "passed"


def test_a_marker_wins_over_the_default_budget(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest
        @pytest.mark.max_ram("50MB")
        def test_it(): b'x' * 18_000_000
        """,
        "--llm-max-ram=10MB",
    )

    assert ran["test_it"].budgets[0].limit == "50MB"
    assert ran["test_it"].outcome == "passed"


def test_importing_the_plugin_costs_nothing() -> None:
    script = (
        "import sys, pytest; before = set(sys.modules); import pytest_llmmem.plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )

    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()

    assert len(modules) <= 12
    assert not {"torch", "transformers", "psutil", "pynvml", "multiprocessing"} & set(modules)


def test_a_session_without_isolated_tests_imports_next_to_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import sys\ndef test_it(): assert len([name for name in sys.modules if name.startswith('pytest_llmmem')]) <= 12"
    )

    pytester.runpytest_subprocess("-p", "no:xdist", "-p", "no:cov").assert_outcomes(passed=1)


@pytest.mark.parametrize("marker", Marker.__subclasses__(), ids=lambda marker: marker.name)
def test_a_markers_line_of_help_is_its_signature_and_its_docstring(marker: type[Marker]) -> None:
    assert MARKERS[marker.name] == f"{marker.usage()}: {inspect.getdoc(marker)}"


def test_a_summary_that_cannot_be_written_ends_nothing(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))

    ran = run("import pytest\n@pytest.mark.in_worker\ndef test_it(): pass")

    ran.result.assert_outcomes(passed=1)
    # the system's own words: Linux and macOS, or Windows
    assert re.search(
        r"no summary: \$GITHUB_STEP_SUMMARY cannot be written \((Is a directory|Permission denied)\)", ran.text
    )


def test_github_is_told_files_as_the_repository_names_them(
    run: Callable[..., Run], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path.parent))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    ran = run("import pytest\n@pytest.mark.in_worker\ndef test_it(): assert False")

    assert (
        f"::error file={pytester.path.name}/{Path(ran.record.tests[0].nodeid).name.partition('::')[0]},line=2,"
        in ran.text
    )
