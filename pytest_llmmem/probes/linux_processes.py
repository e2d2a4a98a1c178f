"""Linux: which processes there are below another, and how they are related."""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "linux", "the platform's switch is probes/__init__.py"

import contextlib
import ctypes
import os
import platform
from typing import Final

from pytest_llmmem.probes.system_files import list_folder, read_file, read_link

_KCMP: Final = {"x86_64": 312, "aarch64": 272}
"""The call's number by architecture."""
_KCMP_VM: Final = 1


def descendants(pid: int) -> tuple[int, ...]:
    """Every process below this one, parents before children; a child that its own parent left is not among them."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = _children(waiting.pop())
        found += children
        waiting += children
    return tuple(found)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for thread in list_folder(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                children += map(int, read_file(f"/proc/{pid}/task/{thread}/children").split())
    return children


def open_files(pid: int) -> set[str]:
    """Names of the files that a process has open or mapped; empty where that cannot be seen."""
    names: set[str] = set()
    with contextlib.suppress(OSError):  # it is gone, or another user's
        for line in read_file(f"/proc/{pid}/maps").decode(errors="replace").splitlines():
            if "/" in line:
                names.add(os.path.basename(line.split(maxsplit=5)[5]))
        for descriptor in list_folder(f"/proc/{pid}/fd"):
            names.add(os.path.basename(read_link(f"/proc/{pid}/fd/{descriptor}")))
    return names


def has_memory(pid: int) -> bool:
    """Whether a process has any: one that ends gives up all of it first, and is a zombie until it is waited for."""
    try:
        return not read_file(f"/proc/{pid}/statm").startswith(b"0 ")
    except OSError:
        return False


def shares_memory(pid: int, other: int) -> bool:
    """Whether two processes share one address space: a child between ``vfork`` and ``exec`` is its parent's (``kcmp(2)``).

    ``False`` where the kernel cannot compare: it was built without ``CONFIG_KCMP``, or a container forbids the call.
    """
    number = _KCMP.get(platform.machine())
    if number is None:
        return False
    return bool(ctypes.CDLL(None).syscall(number, pid, other, _KCMP_VM, 0, 0) == 0)


def command(pid: int) -> tuple[str, ...]:
    """The program and the arguments that a process runs; empty where they cannot be read."""
    try:
        return tuple(read_file(f"/proc/{pid}/cmdline").decode(errors="replace").split("\0")[:-1])
    except OSError:
        return ()


def environment(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty where it cannot be read."""
    try:
        entries = read_file(f"/proc/{pid}/environ").decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
