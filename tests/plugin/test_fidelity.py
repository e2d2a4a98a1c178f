"""An isolated test behaves as in plain pytest, beside the plugins that people use."""

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, needs

SUITE = """
import logging, os, sys, unittest, warnings
import pytest

@pytest.fixture(scope="session")
def for_session(): return ["session"]

@pytest.fixture(scope="module")
def for_module(for_session): return [*for_session, "module"]

@pytest.fixture(scope="class")
def for_class(for_module): return [*for_module, "class"]

class TestScopes:
    def test_scopes(self, for_class): assert for_class == ["session", "module", "class"]

@pytest.mark.parametrize("number", [1, 2])
def test_parametrised(number): assert number
def test_fails(): assert 1 == 2, "a message"
def test_skips(): pytest.skip("not today")
def test_expected(): pytest.xfail("known")
@pytest.mark.xfail
def test_unexpected(): pass
@pytest.mark.xfail(strict=True)
def test_strict(): pass
@pytest.fixture
def broken(): raise ValueError("setup")
def test_error_in_setup(broken): pass
@pytest.fixture
def broken_later():
    yield
    raise ValueError("teardown")
def test_error_in_teardown(broken_later): pass
def test_tmp_path(tmp_path): (tmp_path / "x").write_text("y")
def test_capsys(capsys):
    print("out")
    assert capsys.readouterr().out == "out\\n"
def test_capfd(capfd):
    os.system("echo out")
    assert capfd.readouterr().out == "out\\n"
def test_caplog(caplog):
    logging.warning("logged")
    assert caplog.messages == ["logged"]
def test_monkeypatch(monkeypatch):
    monkeypatch.setenv("X", "1")
    assert os.environ["X"] == "1"
def test_warns(): warnings.warn("be warned", DeprecationWarning)
def test_records(record_property): record_property("answer", 42)
def test_stdin():
    with pytest.raises(OSError): sys.stdin.read()
class TestUnit(unittest.TestCase):
    def test_unit(self): self.assertEqual(1, 1)
    @unittest.skip("no")
    def test_unit_skipped(self): pass
    @unittest.expectedFailure
    def test_unit_expected(self): self.fail()
    def test_subtests(self):
        for i in range(2):
            with self.subTest(i=i): self.assertEqual(i, 0)
"""


def outcomes(junit: Path) -> dict[str, list[str]]:
    """What junit says of each test: the kinds of its children, and its properties' names."""
    return {
        case.get("name", ""): sorted(
            f"{child.tag} {child.get('message', '')[:60]}" for child in case if child.tag != "properties"
        )
        for case in ET.parse(junit).iter("testcase")
    }


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param((), id="alone"),
        pytest.param(("-n", "2"), id="xdist-load", marks=needs("xdist")),
        pytest.param(("-n", "2", "--dist=loadfile"), id="xdist-loadfile", marks=needs("xdist")),
        pytest.param(("--llm-worker=spawn",), id="spawn"),
    ],
)
def test_outcomes_warnings_and_properties_are_those_of_plain_pytest(
    pytester: pytest.Pytester, extra: tuple[str, ...]
) -> None:
    pytester.makepyfile(SUITE)
    common = ("-p", "no:randomly", "-p", "no:cacheprovider")

    distribution = [option for option in extra if "--llm" not in option]

    plain = pytester.runpytest_subprocess("--junitxml=plain.xml", "-p", "no:llmmem", *common, *distribution)
    isolated = pytester.runpytest_subprocess("--junitxml=isolated.xml", "--llm-isolate=all", *common, *extra)

    assert isolated.parseoutcomes() == plain.parseoutcomes()
    assert outcomes(pytester.path / "isolated.xml") == outcomes(pytester.path / "plain.xml")
    assert isolated.ret == plain.ret
    (properties,) = [
        {each.get("name"): each.get("value") for each in case.iter("property")}
        for case in ET.parse(pytester.path / "isolated.xml").iter("testcase")
        if case.get("name") == "test_records"
    ]
    assert properties.keys() == {"answer", "llm_ending", "llm_peak_ram_bytes", "llm_peak_resident_bytes"}


def test_failures_stop_the_session_where_they_would_in_plain_pytest(run: Callable[..., Run]) -> None:
    source = "def test_1(): assert 0\ndef test_2(): assert 0\ndef test_3(): assert 0"

    run(source, "--llm-isolate=all", "-x").result.assert_outcomes(failed=1)
    run(source, "--llm-isolate=all", "--maxfail=2").result.assert_outcomes(failed=2)


def test_last_failed_knows_an_isolated_failure_and_a_death(run: Callable[..., Run]) -> None:
    source = "import os\ndef test_good(): pass\ndef test_bad(): assert 0\ndef test_dead(): os.abort()"

    run(source, "--llm-isolate=all").result.assert_outcomes(passed=1, failed=2)

    run(source, "--llm-isolate=all", "--lf").result.assert_outcomes(failed=2)


def test_pytest_exit_in_a_test_ends_the_session_with_its_code(run: Callable[..., Run]) -> None:
    ran = run(
        "import pytest\ndef test_1(): pytest.exit('enough', returncode=7)\ndef test_2(): pass", "--llm-isolate=all"
    )

    assert ran.result.ret == 7
    ran.result.stdout.fnmatch_lines(["*Exit: enough*"])


@needs("a kept peak of memory")
def test_xfail_covers_deaths_and_breaches_by_type(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os, pytest
        from pytest_llmmem import BudgetExceeded, WorkerCrashed
        @pytest.mark.xfail(raises=WorkerCrashed, strict=True)
        @pytest.mark.in_worker
        def test_crash(): os.abort()
        @pytest.mark.xfail(raises=BudgetExceeded, strict=True)
        @pytest.mark.max_ram("10MB")
        def test_breach(): b"x" * 18_000_000
        @pytest.mark.xfail(raises=BudgetExceeded, strict=True)
        @pytest.mark.max_ram("10MB", on_breach="stop")
        def test_stopped():
            pages = []
            while True: pages.append(b"x" * 1_000_000)
        @pytest.mark.xfail(raises=ValueError)
        @pytest.mark.in_worker
        def test_another_death(): os.abort()
        """
    )

    ran.result.assert_outcomes(xfailed=3, failed=1)
    assert ran["test_breach"].outcome == "xfailed"


def test_tests_in_the_parent_keep_their_fixtures_across_isolated_ones(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest
        made = []
        @pytest.fixture(scope="module")
        def shared():
            made.append(1)
            yield
            made.append("torn down")
        def test_before(shared): assert made == [1]
        @pytest.mark.in_worker
        def test_between(shared): assert made == [1]
        def test_after(shared): assert made == [1]
        """
    )

    ran.result.assert_outcomes(passed=3)


@needs("fork")
def test_markers_are_strict_and_warnings_may_be_errors(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os, pytest
        @pytest.mark.max_ram("1GB")
        @pytest.mark.in_worker(timeout=30)
        def test_it():
            if os.fork() == 0: os._exit(0)
            os.wait()
        """,
        "--strict-markers", "-W", "error",
    )  # fmt: skip

    ran.result.assert_outcomes(passed=1)


@needs("pytest_timeout")
def test_a_timeout_of_pytest_timeout_is_kept_from_outside(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import itertools, pytest
        @pytest.mark.timeout(1)
        @pytest.mark.in_worker
        def test_hangs(): sum(itertools.repeat(0))
        @pytest.mark.in_worker
        def test_lives_on(): pass
        """
    )

    ran.result.assert_outcomes(passed=1, failed=1)
    assert ran["test_hangs"].ending.kind == "timed_out"


@needs("pytest_rerunfailures")
def test_reruns_happen_inside_the_worker(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest
        tries = []
        @pytest.mark.flaky(reruns=2)
        @pytest.mark.in_worker
        def test_flaky():
            tries.append(1)
            assert len(tries) == 3
        """
    )

    assert ran.result.parseoutcomes() == {"passed": 1, "rerun": 2}


@needs("pytest_cov")
@pytest.mark.parametrize("extra", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_coverage_counts_lines_that_ran_in_a_worker(pytester: pytest.Pytester, extra: tuple[str, ...]) -> None:
    pytester.makepyfile(counted="def in_worker():\n    return 1\n\ndef nowhere():\n    return 2\n")
    pytester.makepyfile("import counted\ndef test_it(): assert counted.in_worker() == 1")

    result = pytester.runpytest_subprocess(
        "--llm-isolate=all", "--cov=counted", "--cov-report=term-missing", "-p", "no:randomly", *extra
    )

    result.stdout.fnmatch_lines(["counted.py * 4 * 1 * 75% * 5"])


def test_setup_show_and_live_output_work(run: Callable[..., Run]) -> None:
    ran = run("def test_it(tmp_path): print('live words')", "--llm-isolate=all", "--setup-show", "-s")

    ran.result.stdout.fnmatch_lines(["*SETUP    F tmp_path*", "*live words*"])


@needs("/proc")
@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_an_interrupted_session_leaves_nothing(pytester: pytest.Pytester, how: str) -> None:
    pytester.makepyfile(
        """
        import pathlib, subprocess, time
        def test_waits():
            subprocess.Popen(["sleep", "1234"])
            pathlib.Path("started").touch()
            time.sleep(1000)
        """
    )
    temporary = pytester.mkdir("temporary")
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--llm-isolate=all", "-p", "no:randomly", "--llm-report=report.md"],
        cwd=pytester.path, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)},
        # a shell that runs us in the background has us ignore Ctrl-C, and that is inherited
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 -- no threads here
    )  # fmt: skip
    while not Path(pytester.path, "started").exists():
        time.sleep(0.01)
    family = below(process.pid)

    process.send_signal(signal.Signals[how])

    output, _ = process.communicate(timeout=20)
    if how == "SIGKILL":
        assert process.returncode == -9
    else:
        assert process.returncode == 2
        assert "KeyboardInterrupt: while test_an_interrupted_session_leaves_nothing.py::test_waits ran" in output
        assert not list(temporary.glob("llmmem-*"))
        report = pytester.path.joinpath("report.md").read_text(encoding="utf-8")
        assert "No test ran to its end. Interrupted, while test\\_an\\_interrupted" in report
    assert len(family) >= 4  # reaper, fork server, worker, and what the test started
    deadline = time.monotonic() + 10
    left = set(family)
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if Path(f"/proc/{pid}").exists() and not is_zombie(pid)}
    assert not left


def below(pid: int) -> tuple[int, ...]:
    from pytest_llmmem.probes import descendants

    return descendants(pid)


def is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return True


def test_an_outer_environment_survives(run: Callable[..., Run]) -> None:
    ran = run("import os\ndef test_it(): assert os.environ['PYTEST_CURRENT_TEST']", "--llm-isolate=all")

    ran.result.assert_outcomes(passed=1)
    assert "PYTEST_LLMMEM_WORKER" not in os.environ


@needs("pytest_rerunfailures")
def test_a_death_beside_rerunfailures_keeps_its_phase(run: Callable[..., Run]) -> None:
    ran = run("import os, pytest\n@pytest.mark.in_worker\ndef test_it(): os.abort()", "--reruns=1")

    ran.result.assert_outcomes(failed=1)
    assert ran["test_it"].ending.phase == "call"
