"""Abilities of a machine that tests ask for, by name. A test never asks which platform it runs on.

Wine shows the files of the machine below it, so a file's presence alone proves nothing there.
"""

import importlib.util
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_POSIX: Final = hasattr(os, "fork")


def _has_kernel_file(path: str) -> bool:
    return _POSIX and Path(path).exists()


def _has_prlimit() -> bool:
    if importlib.util.find_spec("resource") is None:
        return False
    import resource

    return hasattr(resource, "prlimit")


def _can_link() -> bool:
    """Windows asks for a privilege. Wine 8 reports success and makes none."""
    with TemporaryDirectory() as folder:
        link = Path(folder, "link")
        try:
            link.symlink_to(folder)
        except OSError:
            return False
        return link.is_symlink()


def _keeps_a_peak() -> bool:
    """Wine keeps no peak of the commit."""
    if sys.platform != "win32":
        return True
    import psutil

    block = b"x" * 50_000_000
    del block
    memory = psutil.Process().memory_info()
    return memory.peak_pagefile - memory.pagefile > 40_000_000


CAPABILITIES: Final[Mapping[str, Callable[[], bool]]] = {
    "/proc": lambda: _has_kernel_file("/proc/self/status"),
    "control groups": lambda: _has_kernel_file("/proc/self/cgroup"),
    "forked workers": lambda: _has_kernel_file("/proc/self/status"),
    "fork": lambda: _POSIX,
    "signals": lambda: hasattr(signal, "SIGKILL"),
    "real-time signals": lambda: hasattr(signal, "SIGRTMIN"),
    "process groups": lambda: hasattr(os, "killpg"),
    "prlimit": _has_prlimit,
    "named pipes": lambda: hasattr(os, "mkfifo"),
    "Unix sockets": lambda: _POSIX and hasattr(socket, "AF_UNIX"),
    "inherited descriptors": lambda: _POSIX,
    "mapped files that can be cut": lambda: _POSIX,
    "a kept peak of memory": _keeps_a_peak,
    "loads that map their shards": lambda: _POSIX,
    "links": _can_link,
    "removal of open files": lambda: _POSIX,
    "quotes in file names": lambda: _POSIX,
    "glibc": lambda: _POSIX and "CS_GNU_LIBC_VERSION" in os.confstr_names,
    "git": lambda: shutil.which("git") is not None,
    "bash": lambda: _POSIX and shutil.which("bash") is not None,
}


@cache
def is_there(name: str) -> bool:
    """Whether the machine has a capability, or Python a module, which is not imported: torch bears no second import."""
    if name in CAPABILITIES:
        return CAPABILITIES[name]()
    return importlib.util.find_spec(name) is not None


def missing(*names: str) -> str:
    """``"needs torch, /proc"``: what is not there; empty where all is."""
    lacking = [name for name in names if not is_there(name)]
    return f"needs {', '.join(lacking)}" if lacking else ""
