"""Jobs, handles and events, without pytest in between."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pytest_llmmem.workers.channel import channel_pair
from pytest_llmmem.workers.process_group import OWN_GROUP, ProcessGroup, interrupt
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.spawned import Launcher, open_startup_output
from pytest_llmmem.workers.windows_job import Job
from pytest_llmmem.workers.windows_spawned import WindowsWorker, start_worker
from pytest_llmmem.workers.worker_source import NoWorkerError

_SLEEP = "import time; time.sleep(600)"


@contextlib.contextmanager
def process(code: str = _SLEEP) -> Iterator["subprocess.Popen[bytes]"]:
    started = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def handle_of(started: "subprocess.Popen[bytes]") -> int:
    return int(started._handle)  # type: ignore[attr-defined]


def ended_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not psutil.pid_exists(pid)


# -- jobs


def test_a_closed_job_ends_its_processes() -> None:
    with process() as started:
        job = Job()
        job.add(handle_of(started))
        assert job.active_processes() == 1

        job.close()

        assert started.wait(10) is not None


def test_a_job_ends_its_processes_with_our_code() -> None:
    with process() as started:
        job = Job()
        job.add(handle_of(started))

        job.terminate(0x20004B49)

        assert started.wait(10) == 0x20004B49
        job.close()


def test_a_limit_of_commit_is_accepted_and_lifted() -> None:
    job = Job()

    job.limit_commit(500_000_000)
    job.limit_commit(None)

    job.close()


def test_a_process_that_is_gone_joins_no_job() -> None:
    job = Job()

    with pytest.raises(OSError, match=r"\[WinError \d+\]"):
        job.add(0xFFFFF0)

    job.close()


def test_a_command_of_ours_ends_with_all_that_it_has_started() -> None:
    code = (
        "import subprocess, sys, time; sys.stdin.readline();"
        f"child = subprocess.Popen([sys.executable, '-c', {_SLEEP!r}]); print(child.pid, flush=True); time.sleep(600)"
    )
    started = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **OWN_GROUP)
    assert started.stdin is not None
    assert started.stdout is not None
    group = ProcessGroup(started)
    started.stdin.write(b"go\n")
    started.stdin.flush()
    child = int(started.stdout.readline())

    interrupt(started)  # there may be no console, and that is no error
    group.kill()

    started.communicate(timeout=30)
    assert ended_within(child, 10)


# -- workers

BODY = """
import json, os, sys, time
from pytest_llmmem.workers.spawned import spawn_arguments
arguments = spawn_arguments()
channel = arguments.channel
"""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    files = SessionFiles.create(tmp_path)
    output = open_startup_output()
    yield Launcher([sys.executable, "-c", BODY], tmp_path, files, output)
    files.close()
    os.close(output)


def start(launcher: Launcher, body: str) -> WindowsWorker:
    command = [*launcher.command[:-1], launcher.command[-1] + body]
    return start_worker(Launcher(command, launcher.cwd, launcher.files, launcher.startup_output))


def received(worker: WindowsWorker) -> object:
    return worker.channel.receive()


def test_a_worker_speaks_over_the_handle_that_it_inherited(launcher: Launcher) -> None:
    worker = start(launcher, "channel.send(('hello', os.getpid()))")

    assert received(worker) == ("hello", worker.pid)
    assert worker.wait_end(20)
    assert worker.exit is not None
    assert worker.exit.code == 0
    worker.close()


def test_a_worker_that_ends_at_once_is_an_end_and_no_error(launcher: Launcher) -> None:
    worker = start(launcher, "os._exit(7)")

    with pytest.raises(NoWorkerError):
        worker.wait_ready()
    with pytest.raises(EOFError):
        worker.poll(5)
    assert worker.wait_end()
    assert worker.exit is not None
    assert worker.exit.code == 7
    worker.close()


def test_what_a_worker_starts_is_in_its_job_from_the_first_moment(launcher: Launcher) -> None:
    worker = start(
        launcher,
        "import subprocess\n"
        f"child = subprocess.Popen([sys.executable, '-c', {_SLEEP!r}])\n"
        "channel.send(child.pid)\n"
        "time.sleep(600)",
    )
    child = received(worker)
    assert isinstance(child, int)

    worker.kill()

    assert ended_within(child, 10)
    worker.close()


def test_a_worker_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pytest_llmmem.workers.session_files import SessionFiles\n"
        "from pytest_llmmem.workers.spawned import Launcher, open_startup_output\n"
        "from pytest_llmmem.workers.windows_spawned import start_worker\n"
        "here = Path(sys.argv[1])\n"
        f"command = [sys.executable, '-c', {_SLEEP!r}]\n"
        "worker = start_worker(Launcher(command, here, SessionFiles.create(here), open_startup_output()))\n"
        "print(worker.pid, flush=True)\n"
        "input()\n"
    )
    folder = tmp_path / "session"
    folder.mkdir()
    started = subprocess.Popen(
        [sys.executable, str(parent), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert started.stdout is not None
    pid = int(started.stdout.readline())
    assert psutil.pid_exists(pid)

    started.kill()
    started.communicate()

    assert ended_within(pid, 10)


def test_files_of_output_outlive_the_worker_that_sent_them(launcher: Launcher, tmp_path: Path) -> None:
    worker = start(
        launcher,
        "output = os.open('output', os.O_RDWR | os.O_CREAT)\n"
        "from pytest_llmmem.workers.messages import Streams\n"
        "channel.send(Streams(2), (output, output))\n"
        "os.write(output, b'the last words')\n"
        "os._exit(5)",
    )
    with contextlib.suppress(EOFError):
        while True:
            worker.poll(5)

    assert worker.output_tail(100)[0] == "the last words"
    assert worker.wait_end()
    worker.close()


def test_nothing_but_what_was_named_is_inherited(launcher: Launcher, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        handle = os.dup(file.fileno())
        os.set_inheritable(handle, True)
        import msvcrt

        number = msvcrt.get_osfhandle(handle)
        worker = start(
            launcher,
            f"import ctypes\nchannel.send(ctypes.windll.kernel32.GetFileType(ctypes.c_void_p({number})))",
        )

        assert received(worker) == 0  # FILE_TYPE_UNKNOWN: there is no such handle
        os.close(handle)
    worker.kill()
    worker.close()


@pytest.mark.parametrize("gil", ["free", "held"])
def test_a_worker_that_is_asked_to_end_writes_its_stack_first(launcher: Launcher, gil: str) -> None:
    wait = "time.sleep(600)" if gil == "free" else "ctypes.PyDLL('kernel32').Sleep(600_000)"
    worker = start(
        launcher,
        "import ctypes, faulthandler\n"
        "faulthandler.enable(file=arguments.files.stacks)\n"
        f"def waits():\n    {wait}\n"
        "channel.send('ready')\nwaits()",
    )
    assert received(worker) == "ready"
    time.sleep(0.5)

    worker.request_exit()

    assert worker.wait_end(20)
    assert worker.exit is not None
    assert worker.exit.signal == "BREAKPOINT (0x80000003)"
    assert "in waits" in worker.files.stacks_text()
    worker.close()


def test_a_live_worker_writes_its_stack_and_goes_on(launcher: Launcher) -> None:
    worker = start(
        launcher,
        "def waits():\n"
        "    for _ in range(200):\n"
        "        time.sleep(0.05)\n"
        "        if arguments.files.stacks_size():\n"
        "            break\n"
        "channel.send('ready')\nwaits()\nchannel.send('alive')",
    )
    assert received(worker) == "ready"

    worker.dump_stacks(both_ends=True)

    assert "in waits" in worker.files.stacks_text()
    assert received(worker) == "alive"
    worker.kill()
    worker.close()


def test_a_worker_has_no_thread_more_than_it_starts(launcher: Launcher) -> None:
    worker = start(launcher, "import threading\nchannel.send((threading.active_count(), len(sys._current_frames())))")

    assert received(worker) == (1, 1)
    worker.kill()
    worker.close()


def test_a_channel_keeps_messages_apart() -> None:
    ours, theirs = channel_pair()
    messages = ("one", b"x" * 100_000, {"three": 3})
    sender = threading.Thread(target=lambda: [theirs.send(message) for message in messages])
    sender.start()  # what is larger than the pipe waits for its reader

    assert tuple(ours.receive() for _ in messages) == messages

    sender.join()
    theirs.close()

    with pytest.raises(EOFError):
        ours.receive()
    ours.close()


def test_no_dialog_waits_for_a_user(launcher: Launcher) -> None:
    worker = start(launcher, "import ctypes\nchannel.send(ctypes.windll.kernel32.GetErrorMode())")

    assert received(worker) == 0x8003
    worker.kill()
    worker.close()
