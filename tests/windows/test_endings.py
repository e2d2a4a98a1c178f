"""Whatever ends a worker is the result of that test, by its right name, and the session goes on."""

import pytest

from tests.windows.conftest import Session, run_session

SOURCE = r"""
    import ctypes, faulthandler, os, subprocess, sys, time, warnings

    import psutil
    import pytest

    worker = pytest.mark.in_worker
    kernel32 = ctypes.WinDLL("kernel32")
    kernel32.TerminateProcess.argtypes = (ctypes.c_void_p, ctypes.c_uint32)

    @worker
    def test_passes():
        assert sys.platform == "win32"

    @worker
    def test_fails():
        assert 1 == 2

    @worker
    def test_reads_freed_memory():
        print("reading shard 3 of 8")
        sys.stderr.write("of them\n")
        faulthandler._read_null()

    @worker
    def test_aborts():
        os.abort()

    @worker
    def test_aborts_without_a_handler():
        faulthandler.disable()
        os.abort()

    @worker
    def test_leaves():
        os._exit(0)

    @worker
    def test_handles_an_exception_and_leaves():
        with pytest.raises(OSError):
            ctypes.string_at(0)
        os._exit(3)

    @worker
    def test_is_killed():
        psutil.Process().kill()

    @worker
    def test_ends_by_a_status():
        kernel32.TerminateProcess(ctypes.c_void_p(-1), 0xC0000374)

    @worker(timeout=2)
    def test_hangs():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open("child", "w") as file:
            file.write(str(child.pid))
        wait_for_ever()

    def wait_for_ever():
        time.sleep(600)

    @worker(timeout=2)
    def test_hangs_with_the_gil():
        ctypes.PyDLL("kernel32").Sleep(600_000)

    @worker
    def test_leaves_a_child():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        warnings.simplefilter("ignore")
        with open("left", "w") as file:
            file.write(str(child.pid))

    @pytest.mark.xfail(raises=pytest.fail.Exception, strict=True)
    @worker
    def test_is_expected_to_die():
        os._exit(1)

    def test_nothing_is_left():
        for name in ("child", "left"):
            with open(name) as file:
                assert not psutil.pid_exists(int(file.read()))
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return run_session(tmp_path_factory.mktemp("endings"), SOURCE)


def test_a_test_that_ends_well_or_raises_has_its_own_result(session: Session) -> None:
    assert (session["test_passes"].outcome, session["test_passes"].ending.kind) == ("passed", "completed")
    assert (session["test_fails"].outcome, session["test_fails"].ending.kind) == ("failed", "raised")


def test_an_access_violation_has_its_name_its_line_and_its_output(session: Session) -> None:
    ending = session["test_reads_freed_memory"].ending

    assert (ending.kind, ending.signal, ending.phase) == ("crashed", "ACCESS_VIOLATION (0xC0000005)", "call")
    assert session["test_reads_freed_memory"].stack[0].endswith(" in test_reads_freed_memory")
    assert "reading shard 3 of 8" in session.text
    assert "of them" in session.text


def test_an_abort_is_a_crash(session: Session) -> None:
    ending = session["test_aborts"].ending

    assert (ending.kind, ending.signal) == ("crashed", "abort (code 3)")


def test_an_abort_without_faulthandler_is_a_fail_fast(session: Session) -> None:
    ending = session["test_aborts_without_a_handler"].ending

    assert (ending.kind, ending.signal) == ("crashed", "FAIL_FAST (0xC0000409)")


def test_a_worker_that_leaves_with_code_zero_has_not_passed(session: Session) -> None:
    record = session["test_leaves"]

    assert (record.outcome, record.ending.kind, record.ending.exit_code) == ("failed", "exited", 0)


def test_the_stack_of_a_handled_exception_is_not_the_ends(session: Session) -> None:
    record = session["test_handles_an_exception_and_leaves"]

    assert (record.ending.kind, record.ending.exit_code) == ("exited", 3)
    assert not record.stack


def test_a_kill_by_another_is_neither_claimed_nor_ruled_out(session: Session) -> None:
    ending = session["test_is_killed"].ending

    assert (ending.kind, ending.exit_code) == ("exited", 15)
    assert "or another process ended it: Windows does not tell" in ending.note


def test_a_status_has_its_name(session: Session) -> None:
    assert session["test_ends_by_a_status"].ending.signal == "HEAP_CORRUPTION (0xC0000374)"


@pytest.mark.parametrize(
    ("name", "line"),
    [("test_hangs", "in wait_for_ever"), ("test_hangs_with_the_gil", "in test_hangs_with_the_gil")],
)
def test_a_hang_is_ended_where_it_hung(session: Session, name: str, line: str) -> None:
    record = session[name]

    assert record.ending.kind == "timed_out"
    assert record.stack[0].endswith(line)


def test_an_expected_death_is_an_xfail(session: Session) -> None:
    assert session["test_is_expected_to_die"].outcome == "xfailed"


def test_what_a_worker_started_ends_with_it(session: Session) -> None:
    assert "PASSED test_them.py::test_nothing_is_left" in session.text


def test_the_session_ends_as_one_with_failures(session: Session) -> None:
    assert session.code == 1
    assert "INTERNALERROR" not in session.text
