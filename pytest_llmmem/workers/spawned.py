"""A fresh interpreter per worker: where fork is not there or not safe, and on request."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any, Final

from pytest_llmmem.core.outcomes import Exit, exit_from_returncode
from pytest_llmmem.probes import descendants
from pytest_llmmem.workers.handle import Worker
from pytest_llmmem.workers.traces import Traces
from pytest_llmmem.workers.wire import Channel

VARIABLE: Final = "PYTEST_LLMMEM_WORKER"
"""Set for a spawned interpreter; tells it that it is a worker, and where its channel is."""

_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_PDEATHSIG: Final = 1


class Spawner:
    """Starts the same command anew for every worker, one of them ahead."""

    def __init__(self, command: Sequence[str], *, cwd: Path, traces: Traces) -> None:
        self._command = list(command)
        self._cwd = cwd
        self._traces = traces
        self._next: tuple[subprocess.Popen[bytes], Channel] | None = None
        self.startup_output = tempfile.TemporaryFile()  # noqa: SIM115 -- it lives as long as the spawner
        if sys.platform == "linux":
            # what a worker leaves behind must come to us, to be ended
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def take(self) -> Worker:
        """A worker that has collected and is ready. Raises ``EOFError`` when it ended before."""
        self.prepare()
        assert self._next is not None
        (process, ours), self._next = self._next, None
        before = frozenset(descendants(os.getpid()))
        worker = Worker(
            pid=process.pid,
            connection=ours,
            traces=self._traces,
            reap=lambda timeout_s: self._reap(process, timeout_s, before),
        )
        worker.wait_ready()
        return worker

    def prepare(self) -> None:
        """Start the next interpreter ahead: it needs seconds to import and collect."""
        if self._next is not None:
            return
        ours, theirs = Pipe()
        self.startup_output.truncate(0)
        streams = (1, 2) if sys.platform == "win32" else (os.dup(1), os.dup(2))
        note = {
            "channel": theirs.fileno(),
            "traces": str(self._traces.folder),
            "parent": os.getpid(),
            "streams": streams,
        }
        how: dict[str, Any]
        if sys.platform == "win32":
            os.set_handle_inheritable(theirs.fileno(), True)
            how = {"close_fds": False}
        else:
            how = {"pass_fds": (theirs.fileno(), *streams), "start_new_session": True}
        process = subprocess.Popen(
            self._command,
            cwd=self._cwd,
            env=os.environ | {VARIABLE: json.dumps(note)},
            stdin=subprocess.DEVNULL,
            stdout=self.startup_output,
            stderr=subprocess.STDOUT,
            **how,
        )
        theirs.close()
        if sys.platform != "win32":
            for descriptor in streams:
                os.close(descriptor)
        self._next = process, ours

    def drain(self) -> None:
        """Every worker is waited for as it ends."""

    def close(self) -> None:
        """End the worker that was started ahead."""
        if self._next is not None:
            process, ours = self._next
            ours.close()
            process.kill()
            process.wait()
        self.startup_output.close()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def _reap(self, process: subprocess.Popen[bytes], timeout_s: float, before: frozenset[int]) -> Exit | None:
        try:
            code = process.wait(timeout_s) if timeout_s else process.poll()
        except subprocess.TimeoutExpired:
            return None
        if code is None:
            return None
        self._kill_left(before)
        return exit_from_returncode(code)

    def _kill_left(self, before: frozenset[int]) -> None:
        """End what a dead worker left: it is below us now, was not before, and is not the next worker's."""
        if sys.platform != "linux":
            return  # elsewhere orphans do not come to us
        ahead = {self._next[0].pid, *descendants(self._next[0].pid)} if self._next else set()
        while left := [pid for pid in descendants(os.getpid()) if pid not in before | ahead]:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in left:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)


@dataclass(frozen=True, slots=True)
class Birth:
    """What a spawned worker learns from its environment."""

    channel: Channel
    traces: Path
    parent_pid: int
    streams: tuple[int, int]


def birth() -> Birth | None:
    """Whether this interpreter was started as a worker; asked once, so that its own children are not."""
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        return None
    note = json.loads(text)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != note["parent"]:
            os._exit(1)
    streams = tuple(note["streams"])
    if sys.platform != "win32":
        for descriptor in (note["channel"], *streams):
            os.set_inheritable(descriptor, False)
    return Birth(Channel(note["channel"]), Path(note["traces"]), note["parent"], streams)  # type: ignore[arg-type]
