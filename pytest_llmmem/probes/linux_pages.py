"""Linux: whose the pages of a process are, from its mappings and page tables. Milliseconds: not for a polling loop."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Final, Literal

from pytest_llmmem.core.readings import Tree
from pytest_llmmem.probes.host import Mappings, Spans

assert sys.platform == "linux", "the platform's switch is probes/__init__.py"

Kind = Literal["file", "shared"]
"""Pages of files; or anonymous pages that are other processes' too, as all that were inherited are until they are written to."""

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_ENTRY: Final = 8
"""Bytes of a page's entry in ``pagemap``."""
_CHUNK: Final = 8192
"""Entries that are read at once: more would be new memory of the process that reads."""
_PRESENT, _SWAPPED, _FILE, _EXCLUSIVE = 0x80, 0x40, 0x20, 0x01
"""Bits of an entry's highest byte."""


def _is_file(byte: int) -> bool:
    return bool(byte & _PRESENT and byte & _FILE)


def _is_shared(byte: int) -> bool:
    # what was swapped out is taken for shared: cold pages go first, and those are inherited
    return bool(byte & _SWAPPED or (byte & _PRESENT and not byte & _FILE and not byte & _EXCLUSIVE))


def _others(is_kind: Callable[[int], bool]) -> bytes:
    return bytes(byte for byte in range(256) if not is_kind(byte))


_OTHERS: Final[dict[Kind, bytes]] = {"file": _others(_is_file), "shared": _others(_is_shared)}
"""The highest bytes of entries of all other kinds."""


def mappings() -> Mappings:
    """What this process has mapped for itself, now."""
    in_memory = _tmpfs_devices()
    files: list[tuple[int, int]] = []
    writable: list[tuple[int, int]] = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:  # address perms offset dev inode path
            address, permissions, _, device, inode, *_ = line.split(maxsplit=5)
            if permissions[3] != "p":
                continue
            first, end = (int(bound, 16) // _PAGE for bound in address.split("-"))
            if inode != "0" and device not in in_memory:
                _append(files, first, end)
            if permissions[1] == "w":
                _append(writable, first, end)
    return Mappings(pid=os.getpid(), files=tuple(files), writable=tuple(writable))


def _append(spans: list[tuple[int, int]], first: int, end: int) -> None:
    """Neighbors are one stretch."""
    if spans and spans[-1][1] == first:
        first = spans.pop()[0]
    spans.append((first, end))


def _tmpfs_devices() -> set[str]:
    """As ``maps`` writes them; ``mountinfo`` has them in decimal."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        fields = [line.split() for line in mounts]
    numbers = [each[2].split(":") for each in fields if each[each.index("-") + 1] in {"tmpfs", "devtmpfs", "ramfs"}]
    return {f"{int(major):02x}:{int(minor):02x}" for major, minor in numbers}


class Pages:
    """The pages of one kind in some stretches of a process's address space.

    From ``/proc/PID/pagemap`` (Documentation/admin-guide/mm/pagemap.rst), which anybody may read of a process of theirs.
    """

    def __init__(self, pid: int, spans: Spans, kind: Kind) -> None:
        self._pagemap: int | None = None
        with contextlib.suppress(OSError):
            self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._others = _OTHERS[kind]
        self._chunks = [
            (start * _ENTRY, (min(start + _CHUNK, end) - start) * _ENTRY)
            for first, end in spans
            for start in range(first, end, _CHUNK)
        ]

    def count_bytes(self) -> int | None:
        """``None`` where the kernel has no such file or refuses it, and once the process is gone."""
        if self._pagemap is None:
            return None
        pages = 0
        try:
            for offset, length in self._chunks:
                highest = os.pread(self._pagemap, length, offset)[_ENTRY - 1 :: _ENTRY]
                pages += len(highest.translate(None, self._others))
        except OSError:
            return None
        return pages * _PAGE

    def close(self) -> None:
        if self._pagemap is not None:
            os.close(self._pagemap)


def shared_once(pids: Iterable[int], siblings: Iterable[int] = ()) -> Tree:
    """Several processes together: a page that k of them share counts 1/k in each (proportional set size).

    Of ``siblings`` only what they share counts, to complete the others' pages; their own is not the family's.
    """
    unreclaimable = resident = 0
    for pid in pids:
        if fields := _rollup(pid):
            unreclaimable += fields["Pss_Anon"] + fields["Pss_Shmem"] + fields["SwapPss"] + fields["Private_Hugetlb"]
            resident += fields["Pss"]
    for pid in siblings:
        if fields := _rollup(pid):
            own = fields["Private_Dirty"] + fields["Private_Clean"]
            unreclaimable += fields["Pss_Anon"] - fields["Private_Dirty"]
            resident += fields["Pss"] - own
    return Tree(unreclaimable_bytes=unreclaimable, resident_bytes=resident)


def _rollup(pid: int | str) -> dict[str, int] | None:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            lines = file.read().decode().splitlines()[1:]
    except OSError:
        return None
    return {name: int(value.split()[0]) * 1024 for name, value in (line.split(":", 1) for line in lines)} or None


def private_maps() -> list[tuple[int, int]]:
    """Bounds of our own anonymous writable mappings, the heap included."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        fields = [line.split() for line in maps]
    return [
        (int(start, 16), int(end, 16))
        for (start, end), permissions, inode, *name in (
            (line[0].split("-"), line[1], line[4], *line[5:]) for line in fields
        )
        if permissions == "rw-p" and inode == "0" and name in ([], ["[heap]"])
    ]
