"""Every way to die, in every phase, ends as that test's result; the next test runs."""

import os
from collections.abc import Callable, Generator

import pytest

from tests.conftest import Run, needs

pytestmark = needs("forked workers")

DEATHS = """
import ctypes, itertools, mmap, os, signal, subprocess, sys, tempfile, time
import pytest

def sigsegv(): ctypes.string_at(0)
def sigabrt(): os.abort()
def sigill(): os.kill(os.getpid(), signal.SIGILL)
def sigfpe(): os.kill(os.getpid(), signal.SIGFPE)
def sigkill(): os.kill(os.getpid(), signal.SIGKILL)
def exit_0(): os._exit(0)
def exit_3(): os._exit(3)
def sys_exit(): sys.exit(3)
def hang_in_python():
    while True: time.sleep(0.01)
def hang_with_gil(): sum(itertools.repeat(0))
def memory_error(): raise MemoryError

def sigbus():
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(1 << 20)
        with mmap.mmap(file.fileno(), 1 << 20) as shard:
            os.truncate(file.name, 0)
            shard[4096]

def deep_recursion():
    sys.setrecursionlimit(1 << 30)
    def deeper(x): return sorted([x], key=deeper)
    deeper(0)

def hang_in_grandchild():
    subprocess.run(["sh", "-c", "sleep 1000 & wait"], stdout=subprocess.PIPE)

def over_budget():
    pages = []
    while True: pages.append(b"x" * 1_000_000)

CAUSES = [sigsegv, sigbus, sigabrt, sigill, sigfpe, sigkill, deep_recursion, exit_0, exit_3, sys_exit,
          hang_in_python, hang_with_gil, hang_in_grandchild, over_budget, memory_error]

@pytest.fixture
def dies_in_phase(request):
    cause, phase = request.param
    if phase == "setup": cause()
    yield cause if phase == "call" else lambda: None
    if phase == "teardown": cause()

@pytest.mark.max_ram("60MB", on_breach="stop")
@pytest.mark.in_worker(timeout=2)
@pytest.mark.parametrize(
    "dies_in_phase",
    [pytest.param((cause, phase), id=f"{cause.__name__}-{phase}") for cause in CAUSES for phase in PHASES],
    indirect=True,
)
def test_dies(dies_in_phase):
    dies_in_phase()

@pytest.mark.in_worker
def test_lives_on(): pass
"""

PHASES = ("setup", "call", "teardown")
ENDINGS = {
    "sigsegv": ("crashed", "SIGSEGV", None),
    "sigbus": ("crashed", "SIGBUS", None),
    "sigabrt": ("crashed", "SIGABRT", None),
    "sigill": ("crashed", "SIGILL", None),
    "sigfpe": ("crashed", "SIGFPE", None),
    "sigkill": ("crashed", "SIGKILL", None),
    "deep_recursion": ("crashed", "SIGSEGV", None),
    "exit_0": ("exited", None, 0),
    "exit_3": ("exited", None, 3),
    "sys_exit": ("raised", None, None),
    "hang_in_python": ("timed_out", None, None),
    "hang_with_gil": ("timed_out", None, None),
    "hang_in_grandchild": ("timed_out", None, None),
    "over_budget": ("over_budget", None, None),
    "memory_error": ("raised", None, None),
}


def source(*phases: str) -> str:
    return f"PHASES = {phases!r}\n{DEATHS}"


@pytest.mark.parametrize("worker", ["fork", "spawn"])
def test_every_death_is_its_tests_result_in_its_phase(run: Callable[..., Run], worker: str) -> None:
    phases = PHASES if worker == "fork" else ("call",)

    ran = run(source(*phases), f"--llm-worker={worker}", timeout_s=240)

    endings = {
        (cause, phase): (
            ran[f"test_dies[{cause}-{phase}]"].outcome,
            ran[f"test_dies[{cause}-{phase}]"].ending.phase,
            ran[f"test_dies[{cause}-{phase}]"].ending.kind,
            ran[f"test_dies[{cause}-{phase}]"].ending.signal,
            ran[f"test_dies[{cause}-{phase}]"].ending.exit_code,
        )
        for cause in ENDINGS
        for phase in phases
    }
    outcome = {"setup": "error", "call": "failed", "teardown": "error"}
    assert endings == {
        (cause, phase): (outcome[phase], phase, *ending) for cause, ending in ENDINGS.items() for phase in phases
    }
    assert ran["test_lives_on"].outcome == "passed"


def test_a_death_in_call_keeps_the_reports_that_pytest_expects(run: Callable[..., Run]) -> None:
    ran = run(source("setup", "call", "teardown"), "-k", "sigabrt or exit_0", "--junitxml=junit.xml")

    # a crash in teardown follows a call that passed
    ran.result.assert_outcomes(passed=2, failed=2, errors=4)


def test_a_sigkill_by_somebody_else_is_not_called_an_oom_kill(run: Callable[..., Run]) -> None:
    ran = run(source("call"), "-k", "sigkill")

    assert (
        ran["test_dies[sigkill-call]"].ending.note
        == "not by us, and the kernel counted no OOM kill: the test sent it, or another process"
    )


def test_the_stack_at_death_begins_with_the_users_line(run: Callable[..., Run]) -> None:
    ran = run(source("call"), "-k", "sigsegv or hang_with_gil or over_budget or sigbus")

    for cause in ("sigsegv", "hang_with_gil", "over_budget", "sigbus"):
        assert f"in {cause}" in ran[f"test_dies[{cause}-call]"].stack[0]


@needs("fork")
def test_a_forked_child_that_comes_back_into_pytest_does_not_speak_for_its_test(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os, pytest
        @pytest.mark.in_worker
        def test_returns():
            if os.fork() == 0: return
            _, status = os.wait()
            assert os.waitstatus_to_exitcode(status) == 1
        @pytest.mark.in_worker
        def test_fails():
            if os.fork() == 0: raise ValueError("of the child")
            os.wait()
            assert False, "of the parent"
        """
    )

    ran.result.assert_outcomes(passed=1, failed=1)
    assert ran["test_returns"].ram.error_bytes >= 0
    assert ran["test_fails"].ending.error == "AssertionError: of the parent"
    ran.result.stderr.fnmatch_lines(["llmmem: a forked child of this test came back into pytest, and was ended: *"])


def test_what_a_test_printed_before_its_death_is_in_its_report_and_in_no_other(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os, pytest, sys
        @pytest.mark.in_worker
        def test_dies():
            print("last words")
            print("and more", file=sys.stderr)
            os.abort()
        @pytest.mark.in_worker
        def test_fails():
            print("another voice")
            assert False
        """
    )

    dies, fails = ran.text.split("test_fails ___")
    assert "last words" in dies
    assert "and more" in dies
    assert "last words" not in fails
    assert "another voice" in fails


def test_a_kernel_oom_kill_in_our_group_is_proved(run: Callable[..., Run], memory_group: str) -> None:
    ran = run(
        f"""
        import os, pytest
        @pytest.mark.in_worker
        def test_dies():
            with open({memory_group!r} + "/cgroup.procs", "w") as file:
                file.write(str(os.getpid()))
            pages = []
            while True: pages.append(b"x" * 1_000_000)
        @pytest.mark.in_worker
        def test_lives_on(): pass
        """
    )

    ending = ran["test_dies"].ending
    assert (ending.kind, ending.signal, ending.phase) == ("out_of_memory", "SIGKILL", "call")
    assert "/proc/vmstat" in ending.note
    assert ran["test_lives_on"].outcome == "passed"


@pytest.fixture
def memory_group() -> Generator[str]:
    from pytest_llmmem.probes.cgroups import own_group

    group = own_group()
    if group is None or not os.access(group.path, os.W_OK):
        pytest.skip("needs a writable memory control group")
    path = group.path / f"llmmem-test-{os.getpid()}"
    path.mkdir()
    (path / ("memory.max" if group.version == 2 else "memory.limit_in_bytes")).write_text(str(50_000_000))
    yield str(path)
    path.rmdir()
