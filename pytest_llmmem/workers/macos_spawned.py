"""A spawned worker where there is neither a subreaper nor a Job Object: macOS. Not run there yet: ``docs/platforms.md``."""

import _thread
import contextlib
import dataclasses
import os
import select
import signal
import subprocess
import sys
import time
from typing import Final

# above the names below: type checkers of Windows stop here
assert sys.platform != "win32", "the platform's switch is plugin.run.pool"

from pytest_llmmem.core.endings import Exit, exit_from_wait_status
from pytest_llmmem.core.readings import LifetimeMarks
from pytest_llmmem.workers.channel import Channel, channel_pair
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.spawned import Launcher
from pytest_llmmem.workers.worker import Worker

_POLL_S: Final = 0.001


class SessionLeader(Worker):
    """A worker that leads a session of its own, so that what it leaves can be ended as a group."""

    def __init__(self, process: "subprocess.Popen[bytes]", channel: Channel, files: SessionFiles) -> None:
        super().__init__(process.pid, channel, files)
        self._process = process

    def reap(self, timeout_s: float) -> Exit | None:
        deadline = time.monotonic() + timeout_s
        while (ended := self._poll()) is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if ended is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        return ended

    def _poll(self) -> Exit | None:
        # Popen's own wait does not return memory counters
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if not pid:
            return None
        self._process.returncode = os.waitstatus_to_exitcode(status)
        # bytes on macOS, and of this process alone; Linux inherits the high-water mark of the parent
        marks = LifetimeMarks(resident_bytes=usage.ru_maxrss) if sys.platform == "darwin" else None
        return dataclasses.replace(exit_from_wait_status(status), lifetime=marks)


def start_worker(launcher: Launcher) -> SessionLeader:
    """Start an interpreter as a worker. Raises ``OSError``."""
    ours, theirs = channel_pair()
    with contextlib.ExitStack() as failed, contextlib.closing(theirs):
        failed.callback(ours.close)
        worker = SessionLeader(launcher.start(theirs.fileno(), leads_session=True), ours, launcher.files)
        failed.pop_all()
    return worker


def end_with_channel(descriptor: int) -> None:
    """End the worker and its children when the process at the other end of the channel is gone.

    The kernel sends no signal for that here. The thread is none of ``threading``'s, so that a test does not meet it; while
    a test holds the GIL, it waits.
    """
    _thread.start_new_thread(_wait_for_end, (descriptor,))


def _wait_for_end(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # the end is always told; messages are left for the channel
    while not poll.poll():
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)
