"""Spawned workers as they are on macOS, wherever there are sessions and process groups."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.capabilities import missing

if lacking := missing("process groups"):
    pytest.skip(lacking, allow_module_level=True)

from pytest_llmmem.workers.channel import channel_pair
from pytest_llmmem.workers.macos_spawned import SessionLeader, start_worker
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.spawned import Launcher, open_startup_output

TELL = """
import os, subprocess, sys, time
from pytest_llmmem.workers.spawned import spawn_arguments
channel = spawn_arguments().channel
"""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    files = SessionFiles.create(tmp_path)
    output = open_startup_output()
    yield Launcher([sys.executable, "-c", TELL], Path.cwd(), files, output)
    files.close()
    os.close(output)


def start(launcher: Launcher, body: str) -> SessionLeader:
    command = [*launcher.command[:-1], TELL + body]
    return start_worker(Launcher(command, launcher.cwd, launcher.files, launcher.startup_output))


def is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_how_a_worker_ended_is_told(launcher: Launcher) -> None:
    worker = start(launcher, "os.kill(os.getpid(), 11)")

    assert worker.reap(20) is not None
    worker.close()


def test_a_worker_that_lives_has_not_ended(launcher: Launcher) -> None:
    worker = start(launcher, "channel.send(os.getsid(0))\ntime.sleep(600)")
    assert worker.channel.receive() == worker.pid

    assert worker.reap(0) is None

    worker.kill()
    assert worker.exit is not None
    assert worker.exit.signal == "SIGKILL"
    worker.close()


def test_what_a_worker_leaves_ends_with_it(launcher: Launcher) -> None:
    worker = start(launcher, "channel.send(subprocess.Popen(['sleep', '600']).pid)\nos._exit(3)")
    child = worker.channel.receive()

    assert worker.wait_end(20)

    assert worker.exit is not None
    assert worker.exit.code == 3
    assert is_gone(child)
    worker.close()


def test_a_worker_ends_with_the_other_end_of_its_channel() -> None:
    ours, theirs = channel_pair()
    program = (
        "import sys, time, subprocess\n"
        "from pytest_llmmem.workers.macos_spawned import end_with_channel\n"
        "end_with_channel(int(sys.argv[1]))\n"
        "subprocess.Popen(['sleep', '600'])\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(theirs.fileno())], pass_fds=(theirs.fileno(),), start_new_session=True
    ) as worker:
        theirs.close()
        ours.send("a message that is not read")
        deadline = time.monotonic() + 20
        while not (children := psutil.Process(worker.pid).children()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert worker.poll() is None

        ours.close()

        assert worker.wait(20) == -signal.SIGKILL
    assert [is_gone(child.pid) for child in children] == [True]
