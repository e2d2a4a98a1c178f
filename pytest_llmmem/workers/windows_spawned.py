"""A spawned worker on Windows: a process in a Job Object of its own."""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "win32", "the platform's switch is workers/spawned.py"

import contextlib
import msvcrt
import os
import subprocess
from collections.abc import Mapping
from typing import Any, Final

from pytest_llmmem.core.endings import Exit, exit_on_windows
from pytest_llmmem.probes.windows import marks_of_ended
from pytest_llmmem.probes.windows_api import (
    BOOL,
    HANDLE,
    KERNEL32,
    NTDLL,
    checked,
    close_handle,
    function,
    open_process,
)
from pytest_llmmem.probes.windows_structures import DWORD
from pytest_llmmem.workers.channel import Channel, channel_pair
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.spawned import Launcher
from pytest_llmmem.workers.windows_dumps import DumpEvents
from pytest_llmmem.workers.windows_job import Job
from pytest_llmmem.workers.worker import Worker

_SUSPENDED: Final = 0x4
"""``CREATE_SUSPENDED``."""
_RIGHTS: Final = 0x1 | 0x100 | 0x800 | 0x1000 | 0x10
"""``PROCESS_TERMINATE | SET_QUOTA | SUSPEND_RESUME | QUERY_LIMITED_INFORMATION | VM_READ``."""
_KILLED: Final = 0x20004B49
"""Our own exit code, with the bit of codes that no system component uses."""

_SUSPEND_RESUME: Final = 0x2
"""``THREAD_SUSPEND_RESUME``."""

_resume: Final = function(NTDLL, "NtResumeProcess", HANDLE, HANDLE)
_open_thread: Final = function(KERNEL32, "OpenThread", HANDLE, DWORD, BOOL, DWORD)
_suspend_thread: Final = function(KERNEL32, "SuspendThread", DWORD, HANDLE)


class WindowsWorker(Worker):
    """A worker in a Job Object: it, and all that it starts, end together, and with this process."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", channel: Channel, files: SessionFiles, events: DumpEvents
    ) -> None:
        """Takes over a process that was started suspended, and lets it run. Raises ``OSError``."""
        super().__init__(process.pid, channel, files)
        self._process = process
        self._events = events
        self._job = Job()
        self._handle = checked(open_process(_RIGHTS, 0, process.pid))
        self._job.add(self._handle)
        self._main_thread = checked(_open_thread(_SUSPEND_RESUME, 0, _first_thread(process.pid)))
        _resume(self._handle)

    @property
    def can_dump(self) -> bool:
        return True

    def limit_commit(self, limit_bytes: int | None) -> bool:
        with contextlib.suppress(OSError):
            self._job.limit_commit(limit_bytes)
            return True
        return False

    def reap(self, timeout_s: float) -> Exit | None:
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        # what it has started and left
        self._job.terminate(_KILLED)
        return exit_on_windows(code, self.files.stacks_text(), marks_of_ended(self._handle))

    def send_kill(self) -> None:
        self.is_ending = True
        self._job.terminate(_KILLED)

    def close(self) -> None:
        if self.is_open:
            self._job.close()
            close_handle(self._main_thread)
            close_handle(self._handle)
            self._events.close()
        super().close()

    def _request_stack(self) -> None:
        self._events.request_stack()

    def _request_death(self) -> None:
        # held still, or memory grows on while the stacks are written
        _suspend_thread(self._main_thread)
        self._events.request_death()


def _first_thread(pid: int) -> int:
    """The only one of a process that has not run yet. Raises ``OSError``."""
    import psutil

    try:
        return int(psutil.Process(pid).threads()[0].id)
    except (psutil.Error, IndexError) as error:
        msg = f"the thread of process {pid} cannot be found: {error}"
        raise OSError(msg) from None


def start_worker(launcher: Launcher) -> WindowsWorker:
    """Start an interpreter as a worker. Raises ``OSError``."""
    ours, theirs = channel_pair()
    with contextlib.ExitStack() as failed, contextlib.closing(theirs):
        failed.callback(ours.close)
        events = DumpEvents.create()
        failed.callback(events.close)
        process = _start_suspended(launcher, theirs.fileno(), events)
        failed.callback(process.wait)
        failed.callback(process.kill)
        worker = WindowsWorker(process, ours, launcher.files, events)
        failed.pop_all()
    return worker


def _start_suspended(launcher: Launcher, channel: int, events: DumpEvents) -> "subprocess.Popen[bytes]":
    """Start the interpreter, which does not run yet: what it starts must be in the job too."""
    streams = [os.dup(descriptor) for descriptor in (1, 2)]
    outputs = [msvcrt.get_osfhandle(descriptor) for descriptor in streams]
    inherited = [channel, *outputs, *events.handles]
    environment = launcher.environment({"channel": channel, "streams": outputs, "events": events.handles})
    # a virtual environment's python.exe only starts the base interpreter, and that would be neither measured nor in the
    # job; multiprocessing.popen_spawn_win32 goes round it in the same way
    base: str = sys._base_executable  # type: ignore[attr-defined]  # noqa: SLF001 -- there is no public name
    if base != sys.executable:
        environment["__PYVENV_LAUNCHER__"] = sys.executable
    os.ftruncate(launcher.startup_output, 0)
    for handle in inherited:
        os.set_handle_inheritable(handle, True)
    try:
        return subprocess.Popen(
            launcher.command,
            executable=base,
            cwd=launcher.cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=launcher.startup_output,
            stderr=subprocess.STDOUT,
            startupinfo=subprocess.STARTUPINFO(lpAttributeList={"handle_list": inherited}),
            # Ctrl-C is for the session, which ends its workers itself
            creationflags=_SUSPENDED | subprocess.CREATE_NEW_PROCESS_GROUP,
        )
    finally:
        for handle in inherited:
            os.set_handle_inheritable(handle, False)
        for descriptor in streams:
            os.close(descriptor)


def inherit(note: Mapping[str, Any]) -> tuple[Channel, tuple[int, int], DumpEvents]:
    """Take the channel, descriptors of standard output and error, and the events from the parent's note, in the worker."""
    for handle in (note["channel"], *note["streams"], *note["events"]):
        os.set_handle_inheritable(handle, False)
    output, error = (msvcrt.open_osfhandle(handle, os.O_APPEND | os.O_BINARY) for handle in note["streams"])
    return Channel(note["channel"], note["parent"]), (output, error), DumpEvents(*note["events"])
