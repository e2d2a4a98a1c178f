"""Linux: how much anonymous memory a process can have got meanwhile, by the page faults that the kernel counted."""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "linux", "the platform's switch is probes/__init__.py"

import os
import re
import resource
from pathlib import Path
from typing import Final

from pytest_llmmem.probes.system_files import close, open_file, read_at

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_LARGEST: Final = _PAGE * _PAGE // 8
"""Bytes of the largest huge page: as many pages as a page has entries of eight bytes."""
_SIZES: Final = Path("/sys/kernel/mm/transparent_hugepage")
_VMSTAT: Final = Path("/proc/vmstat")
_FAULT_ALLOC: Final = re.compile(rb"^thp_fault_alloc (\d+)$", re.MULTILINE)


_getrusage = resource.getrusage


def _huge_pages() -> dict[int, Path | None]:
    """The sizes of huge pages that a page fault may bring, and the kernel's counter of each; ``None`` where it has none.

    Each size has one since Linux 6.10, the largest had it always; the others exist since 6.8
    (Documentation/admin-guide/mm/transhuge.rst).
    """
    found: dict[int, Path | None] = {}
    for folder in _SIZES.glob("hugepages-*kB"):
        if _is_on(folder / "enabled"):
            counter = folder / "stats" / "anon_fault_alloc"
            size = int(folder.name.removeprefix("hugepages-").removesuffix("kB")) * 1024
            found[size] = counter if counter.exists() else None
    if found.get(_LARGEST) is None and _FAULT_ALLOC.search(_VMSTAT.read_bytes()):
        found[_LARGEST] = _VMSTAT
    return found


def _is_on(setting: Path) -> bool:
    """There is none for sizes that only shared memory can have."""
    try:
        return "[never]" not in setting.read_text(encoding="utf-8")
    except OSError:
        return False


_HUGE: Final = _huge_pages()
_EACH: Final = max(_PAGE, *(size for size, counter in _HUGE.items() if counter is None), 0)
"""The most memory that a single counted fault can bring."""


class Faults:
    """The page faults of one process, as bytes: what anonymous memory can have grown by between two calls, at most.

    Anonymous memory comes by page faults, one page each (``mm_account_fault``, mm/memory.c), or one huge page each.
    Huge ones are counted for the whole machine: those of other processes make the bound wider, never too narrow.
    """

    def __init__(self, pid: int) -> None:
        self._stat = open_file(f"/proc/{pid}/stat")
        self._huge = [(open_file(str(path)), size) for size, path in _HUGE.items() if path]

    def read(self) -> int | None:
        """Bytes of small pages since the process began and of huge ones since boot; ``None`` once the process is gone."""
        try:
            text = read_at(self._stat, 1024, 0)
        except ProcessLookupError:
            return None
        # proc_pid_stat(5): minflt and majflt are the 8th and 10th field after the name, which may hold any character
        fields = text[text.rindex(b")") :].split(maxsplit=11)
        faults = int(fields[8]) + int(fields[10])
        return faults * _EACH + sum(_count(read_at(counter, 16384, 0)) * size for counter, size in self._huge)

    def close(self) -> None:
        for descriptor in (self._stat, *(counter for counter, _ in self._huge)):
            close(descriptor)


def faulted_bytes() -> int:
    """Minor page faults of this process so far, a page each: inherited pages that it copied are no more than that."""
    return _getrusage(resource.RUSAGE_SELF).ru_minflt * _PAGE


def _count(text: bytes) -> int:
    match = _FAULT_ALLOC.search(text)
    return int(match[1] if match else text)
