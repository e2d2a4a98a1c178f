"""Memory control groups, version 1 and 2: reading their limits and counters.

Making and enforcing groups is ``workers.limits``'s work; here nothing is written.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

_NO_LIMIT: Final = 2**60
"""Version 1 writes "no limit" as a number near 2**63."""


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """One memory control group."""

    path: Path
    version: Literal[1, 2]

    def limit_bytes(self) -> int | None:
        """The hard limit; ``None`` when there is none."""
        text = self._read("memory.max" if self.version == 2 else "memory.limit_in_bytes")
        return int(text) if text and text.isdigit() and int(text) < _NO_LIMIT else None

    def usage_bytes(self) -> int:
        return int(self._read("memory.current" if self.version == 2 else "memory.usage_in_bytes") or 0)

    def peak_bytes(self) -> int:
        """The highest charge so far, page cache included; 0 where the kernel does not keep it (version 2 before 5.19)."""
        return int(self._read("memory.peak" if self.version == 2 else "memory.max_usage_in_bytes") or 0)

    def unreclaimable_bytes(self) -> int:
        """Charged memory without page cache that the kernel can drop at once."""
        statistics = self._read("memory.stat")
        prefix = "total_" if self.version == 1 else ""
        droppable = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", statistics, re.MULTILINE)
        return max(0, self.usage_bytes() - sum(map(int, droppable)))

    def oom_kills(self) -> int | None:
        """OOM kills in this group; ``None`` where the kernel does not count them (version 1 before 4.13)."""
        text = self._read("memory.events" if self.version == 2 else "memory.oom_control")
        match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        return int(match[1]) if match else None

    def _read(self, name: str) -> str:
        # twenty times a second, and joining paths would cost more than the reading
        try:
            with open(f"{self.path}/{name}", "rb") as file:
                return file.read().decode().strip()
        except OSError:
            return ""


@cache
def own_group() -> MemoryGroup | None:
    """The group that this process was in when first asked; ``None`` where no memory controller is mounted."""
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return _group(1, path)
    for line in _lines("/proc/self/cgroup"):
        if line.startswith("0::"):
            return _group(2, line.removeprefix("0::"))
    return None


@cache
def own_groups() -> tuple[MemoryGroup, ...]:
    """Our own group and those above it, innermost first: the nearest limit is the one that kills."""
    return tuple(_upwards(own_group()))


def _upwards(group: MemoryGroup | None) -> Iterator[MemoryGroup]:
    while group is not None:
        yield group
        parent = group.path.parent
        group = MemoryGroup(parent, group.version) if (parent / "cgroup.procs").exists() else None


def _group(version: Literal[1, 2], path: str) -> MemoryGroup | None:
    kind, option = ("cgroup", "memory") if version == 1 else ("cgroup2", "")
    for line in _lines("/proc/self/mountinfo"):
        mount, _, system = line.partition(" - ")
        fields, (filesystem, _, options) = mount.split(), system.split(maxsplit=2)
        if filesystem != kind or (option and option not in options.split(",")):
            continue
        # in a container the mount shows the group as its own root: /proc/self/cgroup may still give the host's path
        relative = os.path.relpath(path, fields[3]) if path.startswith(fields[3]) else "."
        folder = Path(fields[4], relative)
        return MemoryGroup(folder if folder.is_dir() else Path(fields[4]), version)
    return None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
