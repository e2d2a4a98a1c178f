"""A fresh interpreter per worker: where fork is not there or not safe, and on request."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pytest_llmmem.workers.channel import Channel, move_high
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.worker import Worker
from pytest_llmmem.workers.worker_source import NoWorkerError

VARIABLE: Final = "PYTEST_LLMMEM_WORKER"
"""Variable for a spawned interpreter: it marks it as a worker and locates its channel."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """Starts an interpreter that runs the session's own command as a worker."""

    command: Sequence[str]
    cwd: Path
    files: SessionFiles
    startup_output: int
    """Descriptor of the file that its output goes to until it is ready."""
    preload: tuple[str, ...] = ()
    """Modules of ``--llm-preload``."""
    model_types: tuple[str, ...] = ()
    """Architectures that its tests will load."""

    def environment(self, note: Mapping[str, Any]) -> dict[str, str]:
        """The interpreter's environment, with what it must know as a worker."""
        known = {
            "folder": str(self.files.folder),
            "parent": os.getpid(),
            "preload": self.preload,
            "model_types": self.model_types,
            **note,
        }
        return os.environ | {VARIABLE: json.dumps(known)}

    def start(self, channel: int, *, leads_session: bool = False) -> "subprocess.Popen[bytes]":
        """Start it with the channel of this descriptor, which stays the caller's."""
        streams = (os.dup(1), os.dup(2))
        os.ftruncate(self.startup_output, 0)
        try:
            return subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.environment({"channel": channel, "streams": streams, "files": self.files.descriptors}),
                stdin=subprocess.DEVNULL,
                stdout=self.startup_output,
                stderr=subprocess.STDOUT,
                pass_fds=(channel, *self.files.descriptors, *streams),
                start_new_session=leads_session,
            )
        finally:
            for descriptor in streams:
                os.close(descriptor)


if sys.platform == "linux":
    from pytest_llmmem.workers.children import ChildEvents
    from pytest_llmmem.workers.server import Preloaded, serve

    def serve_spawns(launcher: Launcher, control: Channel, _preloads: bool) -> None:
        """The life of a server that starts interpreters when asked; each of them imports by itself."""
        events = ChildEvents.listen()
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

    def __init__(self, start: Callable[[], Worker]) -> None:
        """``start`` raises ``OSError`` where it cannot."""
        self.notes: list[str] = []
        self._start = start
        self._next: Worker | None = None

    def take(self) -> Worker:
        """A worker that has collected and is ready. Raises ``NoWorkerError`` when it ended before."""
        try:
            self.prepare()
        except OSError as error:
            raise NoWorkerError(str(error)) from None
        assert self._next is not None, "prepared"
        worker, self._next = self._next, None
        try:
            worker.wait_ready()
        except NoWorkerError:
            worker.kill()
            worker.close()
            raise
        return worker

    def prepare(self) -> None:
        """Start the next interpreter ahead: it needs seconds to import and collect."""
        if self._next is None:
            self._next = self._start()

    def drain(self) -> None:
        """Every worker is waited for as it ends."""

    def close(self) -> None:
        """End the worker that was started ahead."""
        if self._next is not None:
            self._next.kill()
            self._next.close()


@dataclass(frozen=True, slots=True)
class SpawnArguments:
    """Arguments that a spawned worker reads from its environment."""

    channel: Channel
    files: SessionFiles
    streams: tuple[int, int]
    preload: tuple[str, ...]
    model_types: tuple[str, ...]


def spawn_arguments() -> SpawnArguments | None:
    """Whether this interpreter was started as a worker; asked once, so that its own children are not."""
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        return None
    note = json.loads(text)
    folder, ahead = Path(note["folder"]), (tuple(note["preload"]), tuple(note["model_types"]))
    if sys.platform == "win32":
        from pytest_llmmem.workers.windows_dumps import arm_dumps, forbid_dialogs
        from pytest_llmmem.workers.windows_spawned import inherit

        os.environ.pop("__PYVENV_LAUNCHER__", None)
        files = SessionFiles.open(folder)
        pipe, outputs, events = inherit(note)
        forbid_dialogs()
        arm_dumps(events, files.stacks)
        return SpawnArguments(pipe, files, outputs, *ahead)
    channel, streams = move_high(note["channel"]), tuple(note["streams"])
    files = SessionFiles.inherit(folder, tuple(note["files"]))
    for descriptor in (channel, *streams):
        os.set_inheritable(descriptor, False)
    if sys.platform == "linux":
        from pytest_llmmem.workers.children import end_with

        end_with(note["parent"])
    elif sys.platform == "darwin":
        from pytest_llmmem.workers.macos_spawned import end_with_channel

        end_with_channel(channel)
    return SpawnArguments(Channel(channel), files, streams, *ahead)


def open_startup_output() -> int:
    """Open a temporary file that no other process can open."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
