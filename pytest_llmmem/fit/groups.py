"""A memory control group around one process, to see whether it lives within a limit.

What a process has touched before it enters stays charged to where it was: the group counts growth. File pages are charged to
whoever reads them first, so a checkpoint must not be in the page cache.
"""

import contextlib
import mmap
import os
import re
import time
from dataclasses import dataclass
from typing import Self

from pytest_llmmem.probes.cgroups import MemoryGroup, own_group
from pytest_llmmem.workers.cgroup_limiter import delegate, write_setting


@dataclass(frozen=True, slots=True)
class LimitedGroup:
    """A child of our own group, without swap."""

    group: MemoryGroup

    @classmethod
    def make(cls, limit_bytes: int, *, parent: MemoryGroup | None = None) -> Self:
        """A child of ``parent``, by default of our own group. Raises ``OSError`` where no group can be made."""
        parent = parent or own_group()
        if parent is None:
            msg = "no memory control group is mounted"
            raise OSError(msg)
        if parent.version == 2:
            delegate(parent)
        made = cls(MemoryGroup(parent.path / f"llmmem-fit-{os.getpid()}-{time.monotonic_ns()}", parent.version))
        made.group.path.mkdir()
        try:
            made.limit_to(limit_bytes)
        except OSError:
            made.group.path.rmdir()
            raise
        return made

    def limit_to(self, limit_bytes: int) -> None:
        """Set the limit, and allow no swap. Raises ``OSError`` where the kernel refuses."""
        if self.group.version == 2:
            write_setting(self.group.path / "memory.max", limit_bytes)
            with contextlib.suppress(OSError):  # a kernel without swap has no such file
                write_setting(self.group.path / "memory.swap.max", 0)
        else:
            write_setting(self.group.path / "memory.limit_in_bytes", limit_bytes)
            with contextlib.suppress(OSError):  # the limit of memory and swap together
                write_setting(self.group.path / "memory.memsw.limit_in_bytes", limit_bytes)

    def enter(self, pid: int) -> None:
        """Move a process in."""
        write_setting(self.group.path / "cgroup.procs", pid)

    def refaulted_bytes(self) -> int | None:
        """Pages of files that were dropped and read again: this shows thrashing without a clock.

        ``workingset_refault_file`` of ``memory.stat``; ``None`` where the kernel does not count it (version 1 before 5.9).
        """
        statistics = self.group.path.joinpath("memory.stat").read_text()
        found = re.search(r"^workingset_refault_file (\d+)$", statistics, re.MULTILINE)
        return int(found[1]) * mmap.PAGESIZE if found else None

    def remove(self) -> None:
        """Once its process has ended. Version 1 first gives back the pages that are still charged to it."""
        if self.group.version == 1:
            with contextlib.suppress(OSError):
                write_setting(self.group.path / "memory.force_empty", 0)
        for _ in range(100):
            with contextlib.suppress(OSError):
                self.group.path.rmdir()
                return
            time.sleep(0.01)
