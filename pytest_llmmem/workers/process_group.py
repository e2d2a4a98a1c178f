"""A command of ours in a process group of its own: interrupted as Ctrl-C does, or ended with all that it has started."""

import contextlib
import os
import signal
import subprocess
import sys
from typing import Any

OWN_GROUP: dict[str, Any]
"""Arguments of ``subprocess.Popen``. In our own group, Ctrl-C would reach the command twice."""

if sys.platform == "win32":
    from pytest_llmmem.workers.windows_job import Job

    OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    # a new group ignores Ctrl-C; Python's handler of Ctrl-Break raises KeyboardInterrupt where pytest has set it so
    _INTERRUPT = signal.CTRL_BREAK_EVENT
else:
    OWN_GROUP = {"process_group": 0}
    _INTERRUPT = signal.SIGINT


def interrupt(process: "subprocess.Popen[Any]") -> None:
    """Interrupt a command, which may have ended. On Windows this needs a console, and does nothing without one."""
    with contextlib.suppress(OSError):
        process.send_signal(_INTERRUPT)


class ProcessGroup:
    """A command, and all that it has started. On Windows they end with this process too."""

    def __init__(self, process: "subprocess.Popen[Any]") -> None:
        """Takes over a command that was started with ``OWN_GROUP``."""
        self._pid = process.pid
        if sys.platform == "win32":
            self._job = Job()
            # what it starts before this is not in the job; the command may have ended already
            with contextlib.suppress(OSError):
                self._job.add_pid(process.pid)

    def kill(self) -> None:
        """End them all. Call it before the command is reaped: until then the group's number is no other's."""
        if sys.platform == "win32":
            self._job.close()
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
