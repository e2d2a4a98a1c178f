"""A Job Object: a worker and all that it starts, limited together and ended together.

The job's only handle is its maker's and is not inherited. When the maker ends, however it ends, the kernel closes the
handle and ends every process of the job.
"""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "win32", "there are no Job Objects elsewhere"

import ctypes
from typing import Final

from pytest_llmmem.probes.windows_api import BOOL, HANDLE, KERNEL32, checked, close_handle, function, open_process
from pytest_llmmem.probes.windows_structures import (
    DIE_ON_UNHANDLED_EXCEPTION,
    DWORD,
    JOB_MEMORY,
    KILL_ON_JOB_CLOSE,
    JobAccounting,
    JobLimits,
)

_ACCOUNTING: Final = 1
_LIMITS: Final = 9
_ASSIGN: Final = 0x1 | 0x100
"""``PROCESS_TERMINATE | PROCESS_SET_QUOTA``."""

_create: Final = function(KERNEL32, "CreateJobObjectW", HANDLE, ctypes.c_void_p, ctypes.c_wchar_p)
_assign: Final = function(KERNEL32, "AssignProcessToJobObject", BOOL, HANDLE, HANDLE)
_terminate: Final = function(KERNEL32, "TerminateJobObject", BOOL, HANDLE, DWORD)
_set: Final = function(KERNEL32, "SetInformationJobObject", BOOL, HANDLE, ctypes.c_int, ctypes.c_void_p, DWORD)
_get: Final = function(
    KERNEL32, "QueryInformationJobObject", BOOL, HANDLE, ctypes.c_int, ctypes.c_void_p, DWORD, ctypes.c_void_p
)


class Job:
    """Processes that end together."""

    def __init__(self) -> None:
        """Raises ``OSError`` where none can be made."""
        self._handle = checked(_create(None, None))
        self.limit_commit(None)

    def add(self, process: int) -> None:
        """Take in a process, by its handle, and all that it will start. Raises ``OSError``."""
        checked(_assign(self._handle, process))

    def add_pid(self, pid: int) -> None:
        """Take in a process that runs already, and all that it will start from now on. Raises ``OSError``."""
        process = checked(open_process(_ASSIGN, 0, pid))
        try:
            self.add(process)
        finally:
            close_handle(process)

    def limit_commit(self, limit_bytes: int | None) -> None:
        """Have the kernel refuse the job commit beyond this, absolute; ``None`` lifts the limit. Raises ``OSError``."""
        limits = JobLimits()
        limits.basic.flags = KILL_ON_JOB_CLOSE | DIE_ON_UNHANDLED_EXCEPTION
        if limit_bytes is not None:
            limits.basic.flags |= JOB_MEMORY
            limits.job_memory = limit_bytes
        checked(_set(self._handle, _LIMITS, ctypes.byref(limits), ctypes.sizeof(limits)))

    def active_processes(self) -> int:
        """The number of its processes that live."""
        accounting = JobAccounting()
        checked(_get(self._handle, _ACCOUNTING, ctypes.byref(accounting), ctypes.sizeof(accounting), None))
        number: int = accounting.active_processes
        return number

    def terminate(self, code: int) -> None:
        """End them all, with this exit code."""
        if self._handle:
            _terminate(self._handle, code)

    def close(self) -> None:
        """End them all, and let go of the job."""
        if self._handle:
            close_handle(self._handle)
            self._handle = None
