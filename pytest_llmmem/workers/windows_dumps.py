"""Stack dumps of a worker on Windows. Two events request them, because Windows has no such signal.

The kernel's thread pool waits for the events, so no thread of ours is seen by a test.

- *live*: a callback in Python writes the main thread's stack. It needs the GIL, so it may come late.
- *fatal*: the callback is ``DebugBreak`` itself, which takes no argument and no GIL. faulthandler hears of the breakpoint
  first and writes the stacks of all threads; nobody else handles it, so the process dies of it.
"""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "win32", "elsewhere there are signals: workers/child.py"

import contextlib
import ctypes
import os
import threading
from dataclasses import dataclass
from typing import Any, Final, Self

from pytest_llmmem.core.stacks import stack_text
from pytest_llmmem.probes.windows_api import BOOL, HANDLE, KERNEL32, checked, close_handle, function
from pytest_llmmem.probes.windows_structures import DWORD

_FOREVER: Final = 0xFFFFFFFF
_IN_WAIT_THREAD: Final = 0x4
"""``WT_EXECUTEINWAITTHREAD``."""
_NO_DIALOGS: Final = 0x1 | 0x2 | 0x8000
"""``SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX | SEM_NOOPENFILEERRORBOX``."""
_NO_REPORT_DIALOG: Final = 0x20
"""``WER_FAULT_REPORTING_NO_UI``."""

_Callback: Final = ctypes.WINFUNCTYPE(None, ctypes.c_void_p, ctypes.c_ubyte)
_create_event: Final = function(KERNEL32, "CreateEventW", HANDLE, ctypes.c_void_p, BOOL, BOOL, ctypes.c_wchar_p)
_set_event: Final = function(KERNEL32, "SetEvent", BOOL, HANDLE)
_address_of: Final = function(KERNEL32, "GetProcAddress", ctypes.c_void_p, HANDLE, ctypes.c_char_p)
_wait: Final = function(
    KERNEL32,
    "RegisterWaitForSingleObject",
    BOOL,
    ctypes.POINTER(HANDLE),
    HANDLE,
    ctypes.c_void_p,
    ctypes.c_void_p,
    DWORD,
    DWORD,
)

_kept: Final[list[Any]] = []
"""Callbacks that the kernel may call for as long as the process lives."""


@dataclass(frozen=True, slots=True)
class DumpEvents:
    """Two events, by their handles."""

    live: int
    fatal: int

    @classmethod
    def create(cls) -> Self:
        """Create the events in the parent; a worker inherits the handles. Raises ``OSError``."""
        live, fatal = (checked(_create_event(None, 0, 0, None)) for _ in range(2))
        return cls(live, fatal)

    @property
    def handles(self) -> tuple[int, int]:
        return self.live, self.fatal

    def request_stack(self) -> None:
        """Have the main thread's stack written."""
        _set_event(self.live)

    def request_death(self) -> None:
        """Have all stacks written, and the process ended."""
        _set_event(self.fatal)

    def close(self) -> None:
        for handle in self.handles:
            close_handle(handle)


def arm_dumps(events: DumpEvents, fault_file: int) -> None:
    """Answer the two events in the worker from now on."""
    write = _Callback(lambda *_: _write_stack(fault_file))
    _kept.append(write)
    debug_break = _address_of(KERNEL32._handle, b"DebugBreak")  # noqa: SLF001 -- the module's handle has no public name
    checked(_wait(ctypes.byref(HANDLE()), events.live, write, None, _FOREVER, 0))
    # in the waiting thread itself: to hand it to another one may take a lock that a suspended thread holds
    checked(_wait(ctypes.byref(HANDLE()), events.fatal, debug_break, None, _FOREVER, _IN_WAIT_THREAD))


def _write_stack(fault_file: int) -> None:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 -- faulthandler tells no thread of another's
    with contextlib.suppress(OSError):
        os.write(fault_file, stack_text(frame).encode(errors="backslashreplace"))


def forbid_dialogs() -> None:
    """Let a crash end this process, and those that it starts, at once: a dialog would wait for a user."""
    KERNEL32.SetErrorMode(_NO_DIALOGS)
    KERNEL32.WerSetFlags(_NO_REPORT_DIALOG)
