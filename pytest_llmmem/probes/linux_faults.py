"""Linux: how much anonymous memory a process can have got meanwhile, by the page faults that the kernel counted."""

import functools
import os
import re
import resource
import sys
from pathlib import Path
from typing import Final

assert sys.platform == "linux", "the platform's switch is probes/__init__.py"

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_HUGE: Final = Path("/sys/kernel/mm/transparent_hugepage")
_VMSTAT: Final = Path("/proc/vmstat")
_FAULT_ALLOC: Final = re.compile(rb"^thp_fault_alloc (\d+)$", re.MULTILINE)


class Faults:
    """The page faults of one process, as bytes: what anonymous memory can have grown by between two calls, at most.

    Anonymous memory comes by page faults, one page each (``mm_account_fault``, mm/memory.c), or one huge page each.
    Huge ones are counted for the whole machine: those of other processes make the bound wider, never too narrow.
    """

    def __init__(self, pid: int) -> None:
        self._stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        self._counters = _huge_counters()
        self._huge = [(os.open(path, os.O_RDONLY | os.O_CLOEXEC), size) for path, size in self._counters or ()]

    def read(self) -> int | None:
        """Bytes since the process began, its huge pages' since boot; ``None`` where huge pages are not counted."""
        if self._counters is None:
            return None
        try:
            text = os.pread(self._stat, 1024, 0)
        except ProcessLookupError:
            return None
        # proc_pid_stat(5): minflt and majflt are the 8th and 10th field after the name, which may hold any character
        fields = text[text.rindex(b")") :].split(maxsplit=11)
        faults = int(fields[8]) + int(fields[10])
        return faults * _PAGE + sum(_count(os.pread(counter, 16384, 0)) * size for counter, size in self._huge)

    def close(self) -> None:
        for descriptor in (self._stat, *(counter for counter, _ in self._huge)):
            os.close(descriptor)


def faulted_bytes() -> int:
    """Minor page faults of this process so far, a page each: inherited pages that it copied are no more than that."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt * _PAGE


def _count(text: bytes) -> int:
    match = _FAULT_ALLOC.search(text)
    return int(match[1] if match else text)


@functools.cache
def _huge_counters() -> tuple[tuple[Path, int], ...] | None:
    """The kernel's counters of huge pages given to page faults, with the size of one; ``None`` where some have none.

    Sizes that are switched off are left out. Each size has its counter since Linux 6.10, the largest one had it always;
    the others exist since 6.8 (Documentation/admin-guide/mm/transhuge.rst).
    """
    counters = []
    for folder in _HUGE.glob("hugepages-*kB"):
        counter = folder / "stats" / "anon_fault_alloc"
        size = int(folder.name.removeprefix("hugepages-").removesuffix("kB")) * 1024
        if _is_on(folder):
            counters.append((counter if counter.exists() else None, size))
    if not counters and _is_on(_HUGE):
        counters = [(None, _largest_size())]
    found = [(counter or _VMSTAT, size) for counter, size in counters if counter or size == _largest_size()]
    return tuple(found) if len(found) == len(counters) else None


def _is_on(folder: Path) -> bool:
    try:
        return "[never]" not in (folder / "enabled").read_text()
    except OSError:
        return False


def _largest_size() -> int:
    return int((_HUGE / "hpage_pmd_size").read_text())
