"""The parent's side of what starts workers: a server below a reaper (Linux)."""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "linux", "the platform's switch is plugin.run.pool"

import contextlib
import os
import time
from collections import deque
from pathlib import Path
from typing import Final, Self

from pytest_llmmem.core.endings import Exit
from pytest_llmmem.core.readings import Tree
from pytest_llmmem.probes import descendants, gpu_files_there
from pytest_llmmem.workers.channel import Channel, channel_pair, readable
from pytest_llmmem.workers.reaper import RunServer, ServerEnded, StartServer, fork_reaper
from pytest_llmmem.workers.server import Ended, NotStarted, Preloaded, Release, Start, Started
from pytest_llmmem.workers.served_workers import ServedWorker
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.worker_source import NoWorkerError

_LEAVING_S: Final = 10.0
_ATTEMPTS: Final = 3
"""A server that ends each time before it has made a worker is not started for ever."""
_KILLED: Final = Exit(signal="SIGKILL")


class ServerGone(Exception):  # noqa: N818 -- it is no error: the server is started again
    """The server of workers has ended; it can be started again."""


class Server:
    """Takes workers from a server, one of them started ahead, and has the server started again when it is killed."""

    def __init__(self, files: SessionFiles, kind: type[ServedWorker], reaper: Channel, reaper_pid: int) -> None:
        self.notes: list[str] = []
        """Events of the server since the list was last emptied."""
        self.server_exit: Exit | None = None
        """Exit of the server; ``None`` while it lives."""
        self._requested: Channel | None = None
        self._kind, self._files, self._reaper, self.reaper_pid = kind, files, reaper, reaper_pid

    @classmethod
    def start(cls, run_server: RunServer, folder: Path, files: SessionFiles, kind: type[ServedWorker]) -> Self:
        """Fork the reaper, and have it start the server. Raises ``OSError`` where that cannot be done."""
        made = cls(files, kind, *fork_reaper(run_server, folder))
        try:
            made._start_server(preloads=True)
        except OSError:
            made._end_reaper()
            raise
        if gpu_files_there() and made._has_opened_gpu():
            made._server.close()
            made._hear_end()
            made._start_server(preloads=False)
        return made

    def take(self) -> ServedWorker:
        """A worker that is ready for a job. Raises ``NoWorkerError`` where none can be had."""
        for _ in range(_ATTEMPTS):
            if self.server_exit is not None:
                self.notes.append(f"the process that starts workers had ended ({self.server_exit.how}): started again")
                self._start_server(preloads=self._preloads)
            with contextlib.suppress(ServerGone):
                return self._take()
        raise NoWorkerError("the process that starts workers ends each time it is started")

    def prepare(self) -> None:
        """Have the next worker made ahead, while the current one works."""
        with contextlib.suppress(OSError):  # ``take`` will meet it again
            self._request()

    def drain(self) -> None:
        """Wait until the workers that were let go have left: what they write at the end is written then."""
        deadline = time.monotonic() + _LEAVING_S
        with contextlib.suppress(ServerGone):
            while self._released and self._handle(max(0.0, deadline - time.monotonic())):
                pass

    def close(self) -> None:
        """End the reaper, and with it every process below it."""
        self._forget_request()
        self._server.close()
        self._end_reaper()

    def reap(self, pid: int, timeout_s: float) -> Exit | None:
        """Wait up to ``timeout_s`` seconds for a worker's end."""
        deadline = time.monotonic() + timeout_s
        try:
            while pid not in self._exits and self._handle(max(0.0, deadline - time.monotonic())):
                pass
        except ServerGone:
            return self._exits.pop(pid, _KILLED)  # the kernel ends workers with their server
        return self._exits.pop(pid, None)

    def release(self, pid: int) -> bool:
        """Let a finished worker leave by itself: only when nothing below the server is left by a test."""
        if not self._alive.issuperset(descendants(self.server_pid)):
            return False
        try:
            self._server.send(Release(pid))
        except OSError:
            return False
        self._released.add(pid)
        return True

    def fileno(self) -> int | None:
        """Becomes readable when a worker has ended; ``None`` when the server is gone, and with it every worker."""
        return self._server.fileno() if self.server_exit is None else None

    def others(self, pid: int) -> tuple[int, ...]:
        """Processes that share pages with a forked worker and the server."""
        return (os.getpid(), self.reaper_pid, *(self._alive - {pid}))

    def _end_reaper(self) -> None:
        self._reaper.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.reaper_pid, 0)

    def _start_server(self, *, preloads: bool) -> None:
        self._forget_request()
        self._preloads = preloads
        self._server, theirs = channel_pair()
        self.server_exit, self.server_pid = None, 0
        self._alive: set[int] = set()
        self._released: set[int] = set()
        self._exits: dict[int, Exit] = {}
        self._started: deque[int] = deque()
        self._processes: Tree | None = None
        """Memory of the server without any worker; it is constant, because the server computes nothing."""
        self._refused = ""
        """Why the worker that was asked for could not be started."""
        try:
            self._reaper.send(StartServer(preloads), (theirs.fileno(),))
        except OSError:
            raise NoWorkerError("the processes that start workers have been killed") from None
        finally:
            theirs.close()

    def _request(self) -> None:
        if self._requested is not None:
            return
        ours, theirs = channel_pair()
        try:
            self._server.send(Start(), (theirs.fileno(),))
        except OSError:
            ours.close()
            raise
        else:
            self._requested = ours
        finally:
            theirs.close()

    def _take(self) -> ServedWorker:
        try:
            self._request()
        except BrokenPipeError:
            pass  # the server is gone, as will be heard
        except OSError as error:
            raise NoWorkerError(str(error)) from None
        while not self._started:
            self._handle(None)
            if self._refused:
                why, self._refused = self._refused, ""
                self._forget_request()
                raise NoWorkerError(why)
        assert self._requested is not None, "a worker is started on request"
        channel, self._requested = self._requested, None
        worker = self._kind(self._started.popleft(), channel, self._files, self)
        try:
            worker.wait_ready()
            self._hear_all()  # one that was made ahead may have gone since, with the server
        except (NoWorkerError, ServerGone):
            worker.close()
            self._hear_all()
            raise
        if self._processes is None:
            self._processes = worker.family_without_it()
        worker.family = self._processes
        return worker

    def _forget_request(self) -> None:
        if self._requested is not None:
            self._requested.close()
            self._requested = None

    def _has_opened_gpu(self) -> bool:
        with contextlib.suppress(ServerGone):
            while not self.server_pid:
                self._handle(None)
        return self._gpu_file is not None

    def _hear_all(self) -> None:
        """Handle the messages that have arrived. Raises ``ServerGone``."""
        while self._handle(0):
            pass

    def _handle(self, timeout_s: float | None) -> bool:
        """Handle a message of the server; returns whether one arrived in time. Raises ``ServerGone``."""
        if self.server_exit is not None:
            raise ServerGone
        if (message := self._server.pop()) is None:
            if not readable((self._server.fileno(),), timeout_s):
                return False
            try:
                self._server.fill()
            except EOFError:
                self._hear_end()
                raise ServerGone from None
            message = self._server.pop()
        match message:
            case Preloaded():
                self.server_pid, self._gpu_file = message.pid, message.gpu_file
            case Started(pid):
                self._started.append(pid)
                self._alive.add(pid)
            case NotStarted(why):
                self._refused = why
            case Ended(pid, exit_):
                self._alive.discard(pid)
                if pid in self._released:
                    self._released.discard(pid)
                else:
                    self._exits[pid] = exit_
        return True

    def _hear_end(self) -> None:
        """Wait until the reaper has ended all that the server had left."""
        try:
            ended: ServerEnded = self._reaper.receive()
        except EOFError:
            self.server_exit = _KILLED
        else:
            self.server_exit = ended.exit
            self._exits |= ended.workers
        self._server.close()
