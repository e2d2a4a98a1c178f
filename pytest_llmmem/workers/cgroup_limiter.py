"""A hard limit around one worker by a memory control group of its own."""

import contextlib
import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pytest_llmmem.core.readings import Reading
from pytest_llmmem.probes import descendants
from pytest_llmmem.probes.cgroups import MemoryGroup

_SLACK_BYTES: Final = 16 * 2**20
"""Difference between a group's budget and its hard limit: the stacks are written before the kernel kills."""
_MOVES: Final = 20
"""Maximum number of passes: a process may be started between the listing and the move."""


@dataclass(slots=True)
class CgroupLimiter:
    """A child of our own memory control group, with the worker alone in it: exact over its whole tree.

    Memory stays charged to where it was first touched, so what the worker had inherited is not counted: the group's
    charge is growth by itself. Version 2 throttles a little above the budget (``memory.high``) and kills above that;
    version 1 knows only the killing.
    """

    pid: int
    _home: Path
    _group: MemoryGroup
    name: str = "cgroup"

    @classmethod
    def enclose(cls, pid: int, limit_bytes: int, parent: MemoryGroup) -> Self:
        """Make the group, and move the process into it. Raises ``OSError`` where that cannot be done."""
        home = delegate(parent) if parent.version == 2 else parent.path
        group = MemoryGroup(parent.path / f"llmmem-{pid}-{time.monotonic_ns()}", parent.version)
        group.path.mkdir()
        hard = limit_bytes + _SLACK_BYTES
        try:
            if parent.version == 2:
                # at the budget itself the test would be slowed down for minutes before anybody sees the breach
                write_setting(group.path / "memory.high", limit_bytes + _SLACK_BYTES // 2)
                write_setting(group.path / "memory.max", hard)
                write_setting(group.path / "memory.oom.group", 1)
                with contextlib.suppress(OSError):
                    write_setting(group.path / "memory.swap.max", 0)
            else:
                write_setting(group.path / "memory.limit_in_bytes", hard)
            write_setting(group.path / "cgroup.procs", pid)
        except OSError:
            group.path.rmdir()
            raise
        return cls(pid, home, group)

    def tick(self, held_bytes: int, reading: Reading) -> None:
        """The kernel does it."""

    def refuses(self) -> bool:
        return False

    def oom_kills(self) -> int:
        return self._group.oom_kills() or 0

    def killed_at_bytes(self) -> int:
        return self._group.peak_bytes() if self.oom_kills() else 0

    def close(self) -> None:
        with contextlib.suppress(OSError):
            write_setting(self._home / "cgroup.procs", self.pid)
        for _ in range(50):
            with contextlib.suppress(OSError):
                self._group.path.rmdir()
                return
            time.sleep(0.01)  # the kernel lets go of a dead task's group a moment after its parent has reaped it


def delegate(group: MemoryGroup) -> Path:
    """Let a version 2 group limit its children; returns the leaf that we live in from then on.

    The kernel allows it only in a group without processes of its own (cgroups(7), "no internal processes"), so ours
    move into a leaf. Processes that are not ours stay where they are. Raises ``OSError`` when there are any.
    """
    leaf = group.path / "llmmem-session"
    if "memory" in (group.path / "cgroup.subtree_control").read_text(encoding="utf-8").split():
        return leaf
    for _ in range(_MOVES):
        ours = {os.getpid(), *descendants(os.getpid())}
        inside = [int(pid) for pid in (group.path / "cgroup.procs").read_text(encoding="utf-8").split()]
        if not ours.issuperset(inside):
            msg = "other processes share pytest's group; give it one of its own, as systemd-run --user --scope does"
            raise OSError(msg)
        leaf.mkdir(exist_ok=True)
        for pid in inside:
            with contextlib.suppress(ProcessLookupError):
                write_setting(leaf / "cgroup.procs", pid)
        try:
            write_setting(group.path / "cgroup.subtree_control", "+memory")
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        else:
            return leaf
    msg = "processes were started in pytest's group faster than they could be moved"
    raise OSError(msg)


def write_setting(path: Path, value: int | str) -> None:
    """Write to a file of a control group. Raises ``OSError`` when the kernel refuses."""
    # a buffered write would report the kernel's refusal in a destructor, where it is swallowed
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)
