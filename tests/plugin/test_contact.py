"""What other people's projects do to a session: no result is lost, no session ends, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_llmmem.probes import descendants
from tests.conftest import Run, needs

linux = needs("forked workers")
posix = needs("signals")
both = pytest.mark.parametrize("worker", [pytest.param("fork", marks=needs("forked workers")), "spawn"])


def test_a_warning_before_the_tests_reaches_the_user_once_and_no_worker(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(helpers="X = 1")
    pytester.makeconftest("import helpers, pytest\npytest.register_assert_rewrite('helpers')")

    ran = run("import pytest\n@pytest.mark.in_worker\ndef test_1(): pass\n@pytest.mark.in_worker\ndef test_2(): pass")

    ran.result.assert_outcomes(passed=2, warnings=1)
    ran.result.stdout.fnmatch_lines(["*PytestAssertRewriteWarning: Module already imported*helpers*"])


OWN_WARNINGS = """
    import warnings, pytest

    class OwnWarning(DeprecationWarning): pass

    class PickyWarning(UserWarning):
        def __init__(self, what, why): super().__init__(f"{what}: {why}")

    pytestmark = pytest.mark.in_worker

    def test_own(): warnings.warn("own words", OwnWarning)
    def test_picky(): warnings.warn(PickyWarning("picky", "words"))
    def test_local():
        class LocalWarning(OwnWarning): pass
        warnings.warn("local words", LocalWarning)
"""


def test_a_warning_of_a_class_of_ones_own_keeps_its_class(run: Callable[..., Run]) -> None:
    ran = run(OWN_WARNINGS)

    ran.result.assert_outcomes(passed=3, warnings=3)
    ran.result.stdout.fnmatch_lines_random(["*: OwnWarning: own words", "*: UserWarning: picky: words"])
    # what was defined inside the test is known nowhere else: the closest of its bases that is
    ran.result.stdout.fnmatch_lines(["*: OwnWarning: local words"])


@needs("xdist")
def test_a_warning_of_a_class_that_the_controller_cannot_import_ends_no_session(run: Callable[..., Run]) -> None:
    ran = run(OWN_WARNINGS, "-n", "2")

    ran.result.assert_outcomes(passed=3, warnings=3)
    ran.result.stdout.fnmatch_lines_random(["*Warning: own words", "*Warning: picky: words", "*Warning: local words"])


@needs("removal of open files")
@both
def test_a_test_that_empties_the_temporary_folder_takes_nothing_of_the_next_one(
    run: Callable[..., Run], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, worker: str
) -> None:
    folder = pytester.mkdir("wiped")
    monkeypatch.setenv("TMPDIR", str(folder))
    ran = run(
        """
        import os, pathlib, pytest, shutil, tempfile

        pytestmark = pytest.mark.in_worker

        def test_wipes():
            folder = pathlib.Path(tempfile.gettempdir())
            assert folder.name == "wiped"
            shutil.rmtree(folder)
            folder.mkdir()
        def test_dies(): os.abort()
        def test_dies_too(): os.abort()
        def test_lives(): pass
        """,
        f"--llm-worker={worker}",
    )

    ran.result.assert_outcomes(passed=2, failed=2)
    assert [str(frame) for frame in ran["test_dies_too"].stack]
    assert not list(folder.glob("llmmem-*"))


@linux
@both
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGABRT"])
def test_a_killed_server_of_workers_is_started_again(run: Callable[..., Run], worker: str, how: str) -> None:
    ran = run(
        f"""
        import os, pathlib, pytest, signal, subprocess, time

        pytestmark = pytest.mark.in_worker

        def test_before(): pass
        def test_kills():
            child = subprocess.Popen(["sleep", "4322"])
            pathlib.Path("pid").write_text(str(child.pid))
            os.kill(os.getppid(), signal.{how})
            time.sleep(30)
        def test_after(): pass
        def test_its_child_is_ended():
            import psutil
            assert not psutil.pid_exists(int(pathlib.Path("pid").read_text()))
        """,
        f"--llm-worker={worker}",
    )

    ran.result.assert_outcomes(passed=3, failed=1)
    assert ran["test_kills"].ending.signal == "SIGKILL"
    assert (
        ran["test_kills"].ending.note
        == f"the process that workers are started from was ended by {how}, and this worker with it"
    )
    assert ran["test_after"].notes == (f"the process that starts workers had ended ({how}): started again",)
    assert ran["test_its_child_is_ended"].notes == ()


@linux
def test_a_stopped_server_of_workers_goes_on(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os, pytest, signal

        pytestmark = pytest.mark.in_worker

        def test_stops(): os.kill(os.getppid(), signal.SIGSTOP)
        def test_after(): pass
        """
    )

    ran.result.assert_outcomes(passed=2)


GARBAGE = """
    import os, pytest, socket, struct, time

    pytestmark = pytest.mark.in_worker(timeout=5)

    def write_to_sockets(data):
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    os.write(int(name), data)
            except OSError:
                pass

    def test_before(): pass
    def test_garbage(): write_to_sockets(b"garbage garbage garbage")
    def test_a_piece_of_it():
        write_to_sockets(b"g")
        time.sleep(30)
    def test_a_message_that_never_ends():
        write_to_sockets(b"\\x93LLM" + struct.pack("!IQ", 0, 1000))
        time.sleep(30)
    def test_huge_length(): write_to_sockets(b"\\x93LLM" + struct.pack("!IQ", 0, 1 << 60))
    def test_flood():
        while True: write_to_sockets(bytes(1_000_000))
    def test_closes_everything(): os.closerange(3, 65536)
    def test_after(): pass
"""


@linux
def test_who_writes_to_the_channel_of_its_worker_fails_alone(run: Callable[..., Run]) -> None:
    ran = run(GARBAGE)

    ends = {test.nodeid.partition("::")[2]: (test.outcome, test.ending.kind) for test in ran.record.tests}
    assert ends == {
        "test_before": ("passed", "completed"),
        "test_garbage": ("failed", "exited"),
        "test_a_piece_of_it": ("failed", "exited"),
        "test_a_message_that_never_ends": ("failed", "timed_out"),
        "test_huge_length": ("failed", "exited"),
        "test_flood": ("failed", "exited"),
        "test_closes_everything": ("failed", "exited"),
        "test_after": ("passed", "completed"),
    }
    assert ran["test_garbage"].ending.note.startswith("it wrote to the descriptor by which its worker reports (")
    ran.result.stdout.fnmatch_lines(["*it wrote to the descriptor by which its worker reports*"])


@posix
def test_a_loop_over_the_usual_descriptors_does_not_meet_the_channel(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os, pytest

        @pytest.mark.in_worker
        def test_writes():
            for descriptor in range(3, 64):
                try: os.write(descriptor, b"garbage")
                except OSError: pass
        """
    )

    ran.result.assert_outcomes(passed=1)


REPLACED = """
    import builtins, faulthandler, os, pickle, pytest, select, socket, time

    FUNCTIONS = [
        (os, "_exit"), (os, "getpid"), (os, "read"), (os, "write"), (os, "open"), (os, "close"), (os, "listdir"),
        (time, "monotonic"), (time, "sleep"), (socket, "socket"), (faulthandler, "enable"), (faulthandler, "register"),
        (select, "select"), (pickle, "dumps"), (builtins, "open"),
    ]

    @pytest.fixture
    def last(request):
        yield
        setattr(*request.param, lambda *_, **__: None)

    @pytest.mark.in_worker
    @pytest.mark.parametrize("last", FUNCTIONS, indirect=True, ids=lambda each: f"{each[0].__name__}.{each[1]}")
    def test_replaces(last): os.stat(".")
    @pytest.mark.in_worker
    def test_dies(): os.abort()
    @pytest.mark.in_worker
    def test_after(): pass
"""


@both
def test_what_a_test_replaces_and_does_not_put_back_hurts_nobody(run: Callable[..., Run], worker: str) -> None:
    ran = run(REPLACED, f"--llm-worker={worker}", timeout_s=120)

    ran.result.assert_outcomes(passed=16, failed=1)
    assert all(test.ram for test in ran.record.tests)


UNPRINTABLE = """
    import pytest

    class BadText(Exception):
        def __str__(self): raise RuntimeError("no text")
        __repr__ = __str__

    def test_bad_text(): raise BadText
    def test_surrogates(): assert "\\ud800 weights" == ""
    def test_huge():
        class Huge:
            def __repr__(self): return "x" * 20_000_000
        raise ValueError(Huge())
    def test_skips_badly(): pytest.skip("\\udc80")
    @pytest.mark.xfail
    def test_expected(): raise BadText
    def test_property(record_property):
        record_property("bad", BadText())
        cycle = []
        cycle += [cycle, cycle, {"in": cycle}]
        record_property("cycle", cycle)
    def test_after(): pass
"""


def test_an_exception_that_cannot_be_shown_ends_as_in_plain_pytest(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    plain = run(UNPRINTABLE, "--llm-isolate=none").result
    ran = run(UNPRINTABLE, "--llm-isolate=all", "--llm-report=report.html", "--llm-report=report.md")

    assert ran.result.parseoutcomes() == plain.parseoutcomes()
    assert ran["test_bad_text"].ending.kind == "raised"
    assert "BadText" in (ran["test_bad_text"].ending.error or "")
    assert Path(pytester.path, "report.html").stat().st_size
    assert Path(pytester.path, "report.md").stat().st_size


def test_tests_that_cannot_run_start_no_worker(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest
        from multiprocessing import active_children
        @pytest.mark.max_ram("8GBB")
        def test_bad(): pass
        """
    )

    ran.result.assert_outcomes(failed=1)
    ran.result.stdout.fnmatch_lines(["llmmem: no isolated test can run, so no worker is started"])
    ran.result.stderr.no_fnmatch_line("*Traceback*")


@pytest.fixture
def temporary(pytester: pytest.Pytester) -> Path:
    """The folder of temporary files of the sessions that a test starts."""
    return pytester.mkdir("temporary")


@pytest.fixture
def waiting(pytester: pytest.Pytester, temporary: Path) -> "Iterator[Callable[..., subprocess.Popen[str]]]":
    """Starts a session, returns when each of its two tests runs and has started children."""
    pytester.makepyfile(
        """
        import pathlib, pytest, subprocess, time
        @pytest.mark.parametrize("number", range(2))
        def test_waits(number):
            subprocess.Popen(["sleep", "4323"])
            subprocess.Popen(["setsid", "sh", "-c", "sleep 4323 & sleep 4323"])
            time.sleep(0.2)
            pathlib.Path(f"started-{number}").touch()
            time.sleep(1000)
        """
    )
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, tests: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "pytest", "--llm-isolate=all", "-p", "no:randomly", *arguments]
        process = subprocess.Popen(
            command,
            cwd=pytester.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"TMPDIR": str(temporary)},
        )
        started.append(process)
        while len(list(pytester.path.glob("started-*"))) < tests:
            assert process.poll() is None
            time.sleep(0.01)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@linux
@needs("xdist")
@both
@pytest.mark.parametrize("xdist", [(), ("-n", "2")], ids=["alone", "xdist"])
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
@pytest.mark.usefixtures("uncovered")
def test_a_killed_session_leaves_no_process_and_no_folder(
    waiting: "Callable[..., subprocess.Popen[str]]",
    temporary: Path,
    how: str,
    xdist: tuple[str, ...],
    worker: str,
) -> None:
    process = waiting(f"--llm-worker={worker}", *xdist, tests=2 if xdist else 1)
    family = set(descendants(process.pid))
    assert len(family) >= 4

    process.send_signal(signal.Signals[how])
    process.communicate(timeout=20)

    deadline = time.monotonic() + 10
    while (left := {pid for pid in family if lives(pid)} or set(temporary.glob("llmmem-*"))) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert not left


def lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


@linux
@needs("xdist")
def test_a_session_under_xdist_that_ends_by_itself_leaves_no_folder(
    run: Callable[..., Run], temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))

    ran = run("import os\ndef test_1(): pass\ndef test_2(): os.abort()", "--llm-isolate=all", "-n", "2")

    ran.result.assert_outcomes(passed=1, failed=1)
    assert not list(temporary.glob("llmmem-*"))


@posix
def test_a_system_without_real_time_signals_has_workers_too(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    # as on macOS, where the numbers that would be theirs belong to SIGABRT and its neighbors
    pytester.makeconftest("import signal\ndel signal.SIGRTMIN, signal.SIGRTMAX")

    ran = run(
        """
        import os, pytest, time
        @pytest.mark.in_worker
        def test_it(): pass
        @pytest.mark.in_worker
        def test_dies(): os.abort()
        @pytest.mark.in_worker(timeout=0.5)
        def test_waits(): time.sleep(30)
        """,
        "--llm-worker=spawn",
    )

    ran.result.assert_outcomes(passed=1, failed=2)
    assert ran["test_dies"].ending.signal == "SIGABRT"
    assert ran["test_waits"].ending.kind == "timed_out"


@posix
def test_too_few_descriptors_are_one_sentence(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.in_worker\ndef test_it(): pass")
    command = f"ulimit -n 18; exec '{sys.executable}' -m pytest -p no:randomly -p no:cacheprovider"

    done = subprocess.run(["sh", "-c", command], cwd=pytester.path, capture_output=True, text=True, check=False)

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("ERROR: no worker can be started: [Errno 24] Too many open files")
    )
    assert "allow more open files, as `ulimit -n 256` does" in done.stderr
    assert "Traceback" not in done.stderr


@both
def test_a_base_folder_that_cannot_be_made_fails_only_tests_that_ask_for_it(
    pytester: pytest.Pytester, worker: str
) -> None:
    pytester.makepyfile("""
        import pytest
        pytestmark = pytest.mark.in_worker
        def test_without(): pass
        def test_with(tmp_path): pass
    """)
    pytester.path.joinpath("file").touch()

    ran = pytester.runpytest_subprocess(f"--basetemp={pytester.path / 'file' / 'x'}", f"--llm-worker={worker}")

    ran.assert_outcomes(passed=1, errors=1)
    ran.stdout.fnmatch_lines(["E *Error: *file*x*"])
    ran.stdout.no_fnmatch_line("*INTERNALERROR*")


@linux
def test_a_full_disk_is_one_sentence(pytester: pytest.Pytester, temporary: Path) -> None:
    pytester.makeconftest(
        """
        import contextlib, pathlib, tempfile
        def pytest_collection_modifyitems():
            with contextlib.suppress(OSError):
                pathlib.Path(tempfile.gettempdir(), "weights").write_bytes(bytes(1 << 20))
        """
    )
    pytester.makepyfile("import pytest\n@pytest.mark.in_worker\ndef test_it(): pass")
    inside = (
        f"mount -t tmpfs -o size=64k tmpfs '{temporary}' && "
        f"TMPDIR='{temporary}' exec '{sys.executable}' -m pytest -p no:randomly -p no:cacheprovider"
    )
    if subprocess.run(["unshare", "-m", "true"], check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs a mount namespace, which is root's")

    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", inside], cwd=pytester.path, capture_output=True, text=True, check=False
    )

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.strip().splitlines()[-1] == (
        "ERROR: no worker can be started: [Errno 28] No space left on device: "
        "free space there, or set TMPDIR to another folder"
    )


SUBTESTS = """
    import os, pytest, time
    pytestmark = pytest.mark.in_worker(timeout=3)

    def test_some_fail(subtests):
        for number in range(4):
            with subtests.test("of four", number=number):
                assert number != 2
    def test_none_fails(subtests):
        with subtests.test(number=1): pass
    def test_dies(subtests):
        with subtests.test("before"): assert False
        os.abort()
"""


def test_subtests_end_as_in_plain_pytest(run: Callable[..., Run]) -> None:
    pytest.importorskip("_pytest.subtests", reason="pytest has subtests since 9.0")

    plain = run(SUBTESTS, "-k", "fail", "-v", "--llm-isolate=none").result
    ran = run(SUBTESTS, "-k", "fail", "-v")

    assert ran.result.parseoutcomes() == plain.parseoutcomes()
    assert {"failed", "passed", "subtests"} <= set(plain.parseoutcomes())
    ran.result.stdout.fnmatch_lines(["contains 1 failed subtest", "SUBFAILED*of four* (number=2) *test_some_fail*"])
    assert ran["test_some_fail"].outcome == "failed"
    assert ran["test_none_fails"].outcome == "passed"


def test_a_death_after_a_subtest_is_in_the_phase_that_ran(run: Callable[..., Run]) -> None:
    pytest.importorskip("_pytest.subtests", reason="pytest has subtests since 9.0")

    ran = run(SUBTESTS, "-k", "dies")

    assert ran["test_dies"].ending.phase == "call"
    assert ran["test_dies"].outcome == "failed"


@posix
@both
def test_a_test_can_lead_a_group_or_a_session_of_its_own(run: Callable[..., Run], worker: str) -> None:
    ran = run(
        """
        import os, pytest, signal
        pytestmark = pytest.mark.in_worker
        def test_setpgrp():
            os.setpgrp()
            assert os.getpgrp() == os.getpid()
            if os.fork() == 0: signal.pause()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.killpg(os.getpgrp(), signal.SIGTERM)
            os.wait()
        def test_setsid():
            os.setsid()
            assert os.getsid(0) == os.getpid()
        def test_after(): pass
        """,
        f"--llm-worker={worker}",
    )

    ran.result.assert_outcomes(passed=3)
