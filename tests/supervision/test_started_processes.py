"""The processes that a test has started: real ones, read one by one."""

import os
import subprocess
import sys
import threading

from pytest_llmmem.supervision.started_processes import StartedProcesses
from tests.conftest import needs

pytestmark = needs("/proc")


def test_a_process_that_has_ended_before_it_was_read_is_none_of_them() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    started = StartedProcesses(of_worker=())

    started.sample([ended.pid])

    assert started.records() == ()


def test_a_process_keeps_its_peak_after_its_end() -> None:
    with subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        started = StartedProcesses(of_worker=())
        started.sample([child.pid])
        before = started.records()
        child.communicate(b"\n")

    started.sample([child.pid])

    assert started.records() == before
    assert before[0].peak_resident_bytes > before[0].peak_bytes > 0


FORKS = """
import os, sys
block = b"x" * 50_000_000
if os.fork() == 0:
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    os.execv(sys.executable, [sys.executable, "-c", "print('here', flush=True); input()"])
os.wait()
"""


def test_a_fork_that_runs_a_program_of_its_own_does_not_keep_the_peak_of_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-uc", FORKS], stdin=-1, stdout=-1, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        fork = int(parent.stdout.readline())
        started = StartedProcesses(of_worker=())
        started.sample([parent.pid, fork])
        assert [each.peak_bytes > 50_000_000 for each in started.records()] == [True, True]
        print(file=parent.stdin, flush=True)
        assert parent.stdout.readline() == "here\n"

        started.sample([parent.pid, fork])

        first, second = started.records()
        parent.communicate("\n")
    assert (first.command.split()[1], second.command.split()[1]) == ("-uc", "-c")
    assert second.peak_resident_bytes < 50_000_000 < first.peak_bytes


def test_only_the_first_of_very_many_processes_are_followed() -> None:
    done = threading.Event()
    threads = [threading.Thread(target=done.wait) for _ in range(40)]  # each can be read in /proc as a process can
    for thread in threads:
        thread.start()
    started = StartedProcesses(of_worker=())
    try:
        started.sample([thread.native_id or 0 for thread in threads])
        started.sample([os.getpid()])
    finally:
        done.set()

    assert len(started.records()) == 32
