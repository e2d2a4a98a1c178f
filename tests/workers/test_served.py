"""The server of workers and the reaper above it, with bodies that are no tests."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.capabilities import missing

if lacking := missing("forked workers"):
    pytest.skip(lacking, allow_module_level=True)

from pytest_llmmem.probes import descendants, mappings
from pytest_llmmem.workers import child
from pytest_llmmem.workers.channel import Channel, ChannelError
from pytest_llmmem.workers.child import ParentConnection
from pytest_llmmem.workers.fork_server import serve_forks
from pytest_llmmem.workers.messages import Finished, Payload
from pytest_llmmem.workers.served import Server
from pytest_llmmem.workers.served_workers import ForkedWorker
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.worker import Worker
from pytest_llmmem.workers.worker_source import NoWorkerError


def run_job(job: Any, connection: ParentConnection) -> None:
    """Do what the job says."""
    what, *details = job
    match what:
        case "say":
            connection.send(*details)
        case "start a child":
            pid = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "4324")
            connection.send(pid)
        case "signal":
            os.kill({"itself": os.getpid, "its server": os.getppid}[details[0]](), details[1])
            time.sleep(30)
        case "write garbage":
            os.write(connection.channel.fileno(), b"garbage")


def serve(files: SessionFiles, preload: Any, control: Channel, preloads: bool) -> None:
    body = partial(child.serve, fault_file=files.stacks, run_job=run_job, malloc="default", mappings=mappings())
    serve_forks(control, body, preload if preloads else lambda: None, jobs=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "session"
    made.mkdir()
    return made


@pytest.fixture
def files(folder: Path) -> Iterator[SessionFiles]:
    made = SessionFiles.create(folder)
    yield made
    made.close()


@pytest.fixture
def server(folder: Path, files: SessionFiles) -> Iterator[Server]:
    started = Server.start(partial(serve, files, lambda: None), folder, files, ForkedWorker)
    yield started
    started.close()


def heard(worker: Worker) -> list[Any]:
    """All that a worker says about its job."""
    said: list[Any] = []
    while not said or said[-1] != Finished():
        if (message := worker.poll(10)) is not None:
            said.append(message.what if isinstance(message, Payload) else message)
    return said


def ends(pid: int) -> bool:
    """Whether a process is gone, or soon is."""
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not Path(f"/proc/{pid}").exists()


def test_a_worker_runs_jobs_until_the_last_one(server: Server) -> None:
    worker = server.take()

    worker.run(("say", "one"), last=False, waits=False)
    first = heard(worker)
    worker.run(("say", "two"), last=True, waits=False)

    assert (first, heard(worker)) == (["one", Finished()], ["two", Finished()])
    assert worker.wait_end()
    assert worker.exit is not None
    assert (worker.exit.code, worker.exit.signal) == (0, None)
    assert worker.exit.peak_resident_bytes
    with pytest.raises(EOFError):
        worker.poll(0)
    worker.close()


def test_the_next_worker_is_made_ahead(server: Server) -> None:
    first = server.take()
    server.prepare()
    second = server.take()

    assert first.pid != second.pid
    assert set(descendants(server.server_pid)) == {first.pid, second.pid}
    first.close()
    second.close()


def test_what_a_dead_worker_has_started_is_ended_before_its_end_is_told(server: Server) -> None:
    worker = server.take()
    worker.run(("start a child",), last=False, waits=False)
    started, _ = heard(worker)

    worker.run(("signal", "itself", signal.SIGKILL), last=True, waits=False)
    with pytest.raises(EOFError):
        worker.poll(10)
    assert worker.wait_end()

    assert worker.exit is not None
    assert worker.exit.signal == "SIGKILL"
    assert worker.origin_exit is None
    assert not Path(f"/proc/{started}").exists()
    worker.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_server_takes_its_workers_along_and_is_started_again(server: Server, number: int) -> None:
    worker = server.take()
    killed = server.server_pid
    worker.run(("start a child",), last=False, waits=False)
    started, _ = heard(worker)

    worker.run(("signal", "its server", number), last=True, waits=False)
    assert worker.wait_end()

    assert worker.exit is not None
    assert worker.exit.signal == "SIGKILL"
    assert worker.origin_exit is not None
    assert worker.origin_exit.signal == signal.Signals(number).name
    assert ends(started)
    another = server.take()
    assert server.server_pid != killed
    assert server.notes == [f"the process that starts workers had ended ({signal.Signals(number).name}): started again"]
    another.run(("say", "all is well"), last=True, waits=False)
    assert heard(another)[0] == "all is well"
    worker.close()
    another.close()


@pytest.mark.parametrize("ready_s", [0.0, 0.5], ids=["at once", "when the next worker is ready"])
def test_a_server_that_is_killed_between_two_tests_is_started_again(server: Server, ready_s: float) -> None:
    server.take().close()
    server.prepare()
    time.sleep(ready_s)
    killed = server.server_pid

    os.kill(killed, signal.SIGKILL)
    assert ends(killed)

    another = server.take()
    another.run(("say", "all is well"), last=True, waits=False)
    assert heard(another)[0] == "all is well"
    another.close()
    assert len(server.notes) == 1


def test_a_stopped_server_goes_on(server: Server) -> None:
    server.take().close()

    os.kill(server.server_pid, signal.SIGSTOP)

    server.take().close()
    assert server.notes == []


def test_a_server_that_dies_each_time_is_not_started_for_ever(folder: Path, files: SessionFiles) -> None:
    server = Server.start(partial(serve, files, os.abort), folder, files, ForkedWorker)

    with pytest.raises(NoWorkerError, match="ends each time it is started"):
        server.take()
    server.close()


def test_without_the_reaper_no_worker_can_be_made_and_it_says_so(server: Server) -> None:
    server.take().close()
    os.kill(server.reaper_pid, signal.SIGKILL)
    os.waitpid(server.reaper_pid, 0)

    with pytest.raises(NoWorkerError, match="the processes that start workers have been killed"):
        server.take()


def test_garbage_of_a_worker_is_an_error_of_its_channel(server: Server) -> None:
    worker = server.take()

    worker.run(("write garbage",), last=True, waits=False)

    with pytest.raises(ChannelError, match="does not begin like a message"):
        heard(worker)
    worker.kill()
    worker.close()


def test_the_end_of_the_parent_ends_everything_and_removes_the_folder(folder: Path, files: SessionFiles) -> None:
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        server = Server.start(partial(serve, files, lambda: None), folder, files, ForkedWorker)
        worker = server.take()
        os.write(writing, f"{server.reaper_pid} {server.server_pid} {worker.pid}".encode())
        time.sleep(60)
    family = list(map(int, os.read(reading, 100).split()))

    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)

    assert all(map(ends, family))
    assert not folder.exists()
    os.close(reading)
    os.close(writing)


def test_closing_leaves_no_process(folder: Path, files: SessionFiles) -> None:
    server = Server.start(partial(serve, files, lambda: None), folder, files, ForkedWorker)
    worker = server.take()
    family = (server.reaper_pid, *descendants(server.reaper_pid))
    assert worker.pid in family

    server.close()

    assert not any(Path(f"/proc/{pid}").exists() for pid in family)
    worker.close()


def test_a_server_ends_by_itself_and_has_time_to_write(tmp_path: Path, folder: Path, files: SessionFiles) -> None:
    def serve_and_write(control: Channel, preloads: bool) -> None:
        try:
            serve(files, lambda: None, control, preloads)
        finally:
            time.sleep(0.2)
            (tmp_path / "written").touch()

    server = Server.start(serve_and_write, folder, files, ForkedWorker)
    worker = server.take()

    server.close()

    assert (tmp_path / "written").exists()
    assert ends(worker.pid)
    worker.close()


def test_an_exit_of_a_worker_that_was_let_go_is_waited_for_by_drain(server: Server) -> None:
    worker = server.take()
    worker.run(("say", "done"), last=True, waits=False)
    heard(worker)

    worker.finish(small=True)
    server.drain()

    assert worker.exit is None
    assert worker.pid not in descendants(server.server_pid)


def test_a_refused_process_is_said_and_the_next_one_is_tried(server: Server) -> None:
    import resource

    server.take().close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(NoWorkerError, match="Too many open files"):
            server.take()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    server.take().close()
