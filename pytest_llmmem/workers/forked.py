"""The parent's side of forked workers."""

import sys

# above the other imports: type checkers of other platforms stop here, and what is imported below is not there for them
assert sys.platform == "linux", "the platform's switch is plugin.pool"

import contextlib
import os
import signal
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import send_handle
from typing import Final

from pytest_llmmem.core.outcomes import Exit
from pytest_llmmem.core.readings import Tree
from pytest_llmmem.probes import descendants, gpu_files_there
from pytest_llmmem.workers.handle import Worker, readable
from pytest_llmmem.workers.traces import Traces
from pytest_llmmem.workers.zygote import Body, Fork, LetGo, Preloaded, leave, serve

_LEAVING_S: Final = 10.0


class Forker:
    """Starts the zygote, and takes workers from it, one of them forked ahead."""

    def __init__(
        self, body: Body, preload: Callable[[], None], without: Callable[[], None], *, traces: Traces, jobs: int
    ) -> None:
        """Before its first fork the zygote is to ``preload``; where that opens a GPU, another one goes on ``without``."""
        self._traces = traces
        self._exits: dict[int, Exit] = {}
        self._start(body, preload, jobs)
        if gpu_files_there() and self._hear_preloaded().gpu_file is not None:
            self._end()
            self._start(body, without, jobs)
        self._forked: list[int] = []
        self._alive: set[int] = set()
        self._family: Tree | None = None
        """What the zygote holds without any worker, as it stays: it never computes anything itself."""
        self._let_go_pids: set[int] = set()
        self._requested: Connection | None = None

    def _start(self, body: Body, preload: Callable[[], None], jobs: int) -> None:
        self._ours, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        with warnings.catch_warnings():
            # threads of other plugins (xdist's channel) do not live on in the zygote, and nothing there waits for them
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            self._ours.close()
            leave(lambda: serve(theirs, body, preload, parent=parent, jobs=jobs))
        theirs.close()

    def take(self) -> Worker:
        """A worker that is ready for a job. Raises ``EOFError`` or ``OSError`` when the zygote or it is gone."""
        self.prepare()
        assert self._requested is not None
        ours, self._requested = self._requested, None
        while not self._forked:
            self._hear()
        pid = self._forked.pop(0)
        worker = Worker(
            pid=pid,
            connection=ours,
            traces=self._traces,
            origin=self.pid,
            siblings=lambda: (os.getpid(), *(self._alive - {pid})),
            reap=lambda timeout_s: self._reap(pid, timeout_s),
            end_sign=self._ours.fileno(),
            let_go=lambda: self._let_go(pid),
        )
        worker.wait_ready()
        if self._family is None:
            together = worker.shared_with(())
            self._family = Tree(
                unreclaimable_bytes=together.unreclaimable_bytes - worker.private_bytes,
                resident_bytes=together.resident_bytes - worker.private_bytes,
            )
        worker.family = self._family
        return worker

    def prepare(self) -> None:
        """Have the next worker made ahead, while the current one works."""
        if self._requested is None:
            self._requested, theirs = Pipe()
            self._ours.send(Fork())
            send_handle(self._ours, theirs.fileno(), self.pid)
            theirs.close()

    def drain(self) -> None:
        """Wait until the workers that were let go have left: what they write at the end is written then."""
        deadline = time.monotonic() + _LEAVING_S
        with contextlib.suppress(EOFError, OSError):
            while self._let_go_pids and readable((self._ours.fileno(),), max(0.0, deadline - time.monotonic())):
                self._hear()

    def close(self) -> None:
        """End the zygote, and with it every worker."""
        if self._requested is not None:
            self._requested.close()
        self._end()

    def _end(self) -> None:
        self._ours.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _let_go(self, pid: int) -> bool:
        """Whether a finished worker may leave by itself: only when nothing below the zygote is left by a test."""
        if not self._alive.issuperset(descendants(self.pid)):
            return False
        self._let_go_pids.add(pid)
        self._ours.send(LetGo(pid))
        return True

    def _hear_preloaded(self) -> Preloaded:
        try:
            preloaded: Preloaded = self._ours.recv()
        except EOFError:
            return Preloaded(None)  # it is gone, as who takes a worker will find out
        return preloaded

    def _hear(self) -> None:
        """Take in one message: a worker was forked (its pid), or one has ended (its pid and how)."""
        message = self._ours.recv()
        if isinstance(message, Preloaded):
            return
        if isinstance(message, int):
            self._forked.append(message)
            self._alive.add(message)
            return
        pid, exit_ = message
        self._alive.discard(pid)
        if pid in self._let_go_pids:
            self._let_go_pids.discard(pid)
        else:
            self._exits[pid] = exit_

    def _reap(self, pid: int, timeout_s: float) -> Exit | None:
        deadline = time.monotonic() + timeout_s
        while pid not in self._exits and readable((self._ours.fileno(),), max(0.0, deadline - time.monotonic())):
            try:
                self._hear()
            except (EOFError, OSError):
                # the zygote died, and the kernel ends its workers with it
                return Exit(signal="SIGKILL", signal_number=signal.SIGKILL)
        return self._exits.pop(pid, None)
