"""Functions of the Windows API that are called by name, with their signatures."""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "win32", "there is no such interface elsewhere"

import ctypes
from typing import Any, Final

from pytest_llmmem.probes.windows_structures import DWORD

HANDLE: Final = ctypes.c_void_p
BOOL: Final = ctypes.c_int

KERNEL32: Final = ctypes.WinDLL("kernel32", use_last_error=True)
NTDLL: Final = ctypes.WinDLL("ntdll")


def function(library: ctypes.WinDLL, name: str, result: Any, *arguments: Any) -> Any:
    """A function with its signature: without one, handles and sizes would be cut to 32 bits."""
    found = getattr(library, name)
    found.restype, found.argtypes = result, arguments
    return found


def checked(result: Any) -> Any:
    """Return the result of a function. Raises ``OSError`` with its reason if it is a failure: zero, or no handle."""
    if not result:
        raise ctypes.WinError(ctypes.get_last_error())
    return result


open_process: Final = function(KERNEL32, "OpenProcess", HANDLE, DWORD, BOOL, DWORD)
close_handle: Final = function(KERNEL32, "CloseHandle", BOOL, HANDLE)
