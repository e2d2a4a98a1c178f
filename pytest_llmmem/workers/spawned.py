"""A fresh interpreter per worker: where fork is not there or not safe, and on request."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pytest_llmmem.core.outcomes import Exit, exit_from_returncode
from pytest_llmmem.workers.channel import Channel, channel_pair, move_high
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.worker import NoWorkerError, Worker

VARIABLE: Final = "PYTEST_LLMMEM_WORKER"
"""Set for a spawned interpreter; tells it that it is a worker, and where its channel is."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """Starts an interpreter that runs the session's own command as a worker."""

    command: Sequence[str]
    cwd: Path
    files: SessionFiles
    startup_output: int
    """Descriptor of the file that its output goes to until it is ready."""

    def start(self, channel: int) -> "subprocess.Popen[bytes]":
        """Start it with the channel of this descriptor, which stays the caller's."""
        os.ftruncate(self.startup_output, 0)
        streams = (1, 2) if sys.platform == "win32" else (os.dup(1), os.dup(2))
        note = {
            "channel": channel,
            "folder": str(self.files.folder),
            "files": self.files.descriptors,
            "parent": os.getpid(),
            "streams": streams,
        }
        environment = os.environ | {VARIABLE: json.dumps(note)}
        how: dict[str, Any]
        if sys.platform == "win32":
            os.set_handle_inheritable(channel, True)
            how = {"close_fds": False}
            # a virtual environment's python.exe only starts the base interpreter, and that would not be measured;
            # multiprocessing.popen_spawn_win32 goes round it in the same way
            base: str = sys._base_executable  # type: ignore[attr-defined]  # noqa: SLF001 -- there is no public name
            if sys.executable != base:
                how["executable"] = base
                environment["__PYVENV_LAUNCHER__"] = sys.executable
        else:
            how = {"pass_fds": (channel, *self.files.descriptors, *streams)}
        try:
            return subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=self.startup_output,
                stderr=subprocess.STDOUT,
                **how,
            )
        finally:
            if sys.platform != "win32":
                for descriptor in streams:
                    os.close(descriptor)


if sys.platform == "linux":
    from pytest_llmmem.workers.children import ChildEvents
    from pytest_llmmem.workers.server import Preloaded, serve

    def serve_spawns(launcher: Launcher, control: Channel, _preloads: bool) -> None:
        """The life of a server that starts interpreters when asked; each of them imports by itself."""
        events = ChildEvents()
        control.send(Preloaded(os.getpid(), None))
        started: dict[int, subprocess.Popen[bytes]] = {}

        def start(descriptor: int) -> int:
            try:
                process = launcher.start(descriptor)
            finally:
                os.close(descriptor)
            # kept, for ``Popen`` would wait for a process by itself when it is forgotten
            started[process.pid] = process
            return process.pid

        serve(control, events, start, marks="inherited")


class Spawner:
    """Starts an interpreter for every worker, one of them ahead, as children of this process."""

    def __init__(self, launcher: Launcher, files: SessionFiles) -> None:
        self.notes: list[str] = []
        self._launcher = launcher
        self._traces = files
        self._next: tuple[subprocess.Popen[bytes], Channel] | None = None

    def take(self) -> Worker:
        """A worker that has collected and is ready. Raises ``NoWorkerError`` when it ended before."""
        try:
            self.prepare()
        except OSError as error:
            raise NoWorkerError(str(error)) from None
        assert self._next is not None, "prepared"
        (process, ours), self._next = self._next, None
        worker = SpawnedWorker(process, ours, self._traces)
        worker.wait_ready()
        return worker

    def prepare(self) -> None:
        """Start the next interpreter ahead: it needs seconds to import and collect."""
        if self._next is None:
            ours, theirs = channel_pair()
            try:
                self._next = self._launcher.start(theirs.fileno()), ours
            finally:
                theirs.close()

    def drain(self) -> None:
        """Every worker is waited for as it ends."""

    def close(self) -> None:
        """End the worker that was started ahead."""
        if self._next is not None:
            process, ours = self._next
            ours.close()
            process.kill()
            process.wait()


class SpawnedWorker(Worker):
    """A worker that is a child of this process."""

    def __init__(self, process: "subprocess.Popen[bytes]", channel: Channel, files: SessionFiles) -> None:
        super().__init__(process.pid, channel, files)
        self._process = process

    def reap(self, timeout_s: float) -> Exit | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout_s) if timeout_s else self._process.poll()
            return None if code is None else exit_from_returncode(code)
        return None


@dataclass(frozen=True, slots=True)
class SpawnArguments:
    """What a spawned worker learns from its environment."""

    channel: Channel
    files: SessionFiles
    streams: tuple[int, int]


def spawn_arguments() -> SpawnArguments | None:
    """Whether this interpreter was started as a worker; asked once, so that its own children are not."""
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        return None
    note = json.loads(text)
    channel, streams = note["channel"], tuple(note["streams"])
    if sys.platform == "linux":
        from pytest_llmmem.workers.children import end_with

        end_with(note["parent"])
    folder = Path(note["folder"])
    if sys.platform == "win32":
        files = SessionFiles.open(folder)
    else:
        files = SessionFiles.inherit(folder, tuple(note["files"]))
        for descriptor in (channel, *streams):
            os.set_inheritable(descriptor, False)
    return SpawnArguments(Channel(move_high(channel)), files, streams)


def open_startup_output() -> int:
    """A file that nobody else sees."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
