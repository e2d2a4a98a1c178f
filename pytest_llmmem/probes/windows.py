"""Windows: ``GetProcessMemoryInfo`` and ``GlobalMemoryStatusEx``."""

import os
import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "win32", "the platform's switch is probes/__init__.py"

import contextlib
import ctypes
from collections.abc import Iterable
from typing import Final, Literal

from pytest_llmmem.core.readings import LifetimeMarks, Reading, Tree
from pytest_llmmem.probes.host import Gone, HostMemory, Spans
from pytest_llmmem.probes.portable import sum_of, unreclaimable_of
from pytest_llmmem.probes.windows_api import BOOL, HANDLE, KERNEL32, checked, close_handle, function, open_process
from pytest_llmmem.probes.windows_structures import (
    DWORD,
    ProcessMemory,
    SystemMemory,
    host_memory_of,
    marks_of,
    reading_of,
)

METHOD: Final[Literal["kernel", "sampled"]] = "kernel"

_QUERY: Final = 0x1000 | 0x10
"""``PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_VM_READ``."""
_get_memory: Final = function(KERNEL32, "K32GetProcessMemoryInfo", BOOL, HANDLE, ctypes.POINTER(ProcessMemory), DWORD)
_get_system_memory: Final = function(KERNEL32, "GlobalMemoryStatusEx", BOOL, ctypes.POINTER(SystemMemory))
_get_exit_code: Final = function(KERNEL32, "GetExitCodeProcess", BOOL, HANDLE, ctypes.POINTER(DWORD))
_STILL_ACTIVE: Final = 259


class Memory:
    """Readings of one process through a kept handle, which is valid after its end."""

    def __init__(self, pid: int) -> None:
        """Raises ``OSError`` for a process that is not there, or another user's."""
        self._handle = checked(open_process(_QUERY, 0, pid))

    def read(self) -> Reading | None:
        """The process now; ``None`` once it is gone."""
        code = DWORD()
        if not _get_exit_code(self._handle, ctypes.byref(code)) or code.value != _STILL_ACTIVE:
            return None
        counters = _counters(self._handle)
        return reading_of(counters) if counters is not None and counters.working_set else None

    def read_growth(self) -> Reading | None:
        """There is nothing cheaper than a reading."""
        return self.read()

    def read_pages(self) -> Reading | None:
        """Read as usual: pages of files cannot be distinguished."""
        return self.read()

    def learn(self, reading: Reading) -> None:
        """Do nothing: no state is kept between readings."""

    def close(self) -> None:
        if self._handle:
            close_handle(self._handle)
            self._handle = None


def _counters(handle: int) -> ProcessMemory | None:
    counters = ProcessMemory(size=ctypes.sizeof(ProcessMemory))
    return counters if _get_memory(handle, ctypes.byref(counters), counters.size) else None


def open_memory(pid: int, libraries: Spans = ()) -> Memory | Gone:  # noqa: ARG001 -- the probe's signature
    """Readings of a process; of one that has ended already, there are none."""
    try:
        return Memory(pid)
    except OSError:
        return Gone()


def count_unreclaimable() -> int:
    """Unreclaimable memory of this process."""
    return unreclaimable_of(open_memory(os.getpid()).read())


def shared_once(pids: Iterable[int], siblings: Iterable[int] = ()) -> Tree:  # noqa: ARG001 -- the probe's signature
    """Several processes together."""
    with contextlib.ExitStack() as opened:
        return sum_of(opened.enter_context(contextlib.closing(open_memory(pid))).read() for pid in pids)


def marks_of_ended(handle: int) -> LifetimeMarks | None:
    """The high-water marks of a process that has ended: the kernel keeps them as long as a handle is open."""
    counters = _counters(handle)
    return None if counters is None else marks_of(counters)


def host_memory() -> HostMemory:
    """The machine, by RAM and by commit."""
    status = SystemMemory(size=ctypes.sizeof(SystemMemory))
    checked(_get_system_memory(ctypes.byref(status)))
    return host_memory_of(status)
