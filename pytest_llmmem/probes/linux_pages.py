"""Linux: owners of a process's pages, from its mappings and page tables. Takes milliseconds: not for a polling loop."""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "linux", "the platform's switch is probes/__init__.py"

import os
from collections.abc import Callable, Iterable
from typing import Final, Literal

from pytest_llmmem.core.readings import Tree
from pytest_llmmem.probes.host import Mappings, Spans
from pytest_llmmem.probes.system_files import close, open_file, read_at, read_file

Kind = Literal["file", "shared", "present"]
"""Pages of files; anonymous pages that are other processes' too, as all that were inherited are until they are written to;
or all that are resident."""

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


def _is_present(byte: int) -> bool:
    return bool(byte & _PRESENT)


_OTHERS: Final[dict[Kind, bytes]] = {
    "file": _others(_is_file),
    "shared": _others(_is_shared),
    "present": _others(_is_present),
}
"""The highest bytes of entries of all other kinds."""


def mappings() -> Mappings:
    """The current mappings of this process."""
    in_memory = _tmpfs_devices()
    files: list[tuple[int, int]] = []
    private: list[tuple[int, int]] = []
    for line in _lines("/proc/self/maps"):  # address perms offset dev inode path
        address, permissions, _, device, inode, *_ = line.split(maxsplit=5)
        if permissions[3] != "p":
            continue
        first, end = (int(bound, 16) // _PAGE for bound in address.split("-"))
        _append(private, first, end)
        if inode != "0" and device not in in_memory:  # pages of a tmpfs's files are shared memory
            _append(files, first, end)
    return Mappings(pid=os.getpid(), files=tuple(files), private=tuple(private))


def mapped_files() -> Spans:
    """First page and end of every file mapping of this process, files in memory included."""
    lines = (line.split(maxsplit=5) for line in _lines("/proc/self/maps"))
    bounds = (fields[0].split("-") for fields in lines if fields[-1].startswith("/"))
    return tuple((int(first, 16) // _PAGE, int(end, 16) // _PAGE) for first, end in bounds)


def _append(spans: list[tuple[int, int]], first: int, end: int) -> None:
    """Neighbors are one stretch."""
    if spans and spans[-1][1] == first:
        first = spans.pop()[0]
    spans.append((first, end))


def _tmpfs_devices() -> set[str]:
    """Device numbers in the format of ``maps``; ``mountinfo`` has them in decimal."""
    fields = [line.split() for line in _lines("/proc/self/mountinfo")]
    numbers = [each[2].split(":") for each in fields if each[each.index("-") + 1] in {"tmpfs", "devtmpfs", "ramfs"}]
    return {f"{int(major):02x}:{int(minor):02x}" for major, minor in numbers}


def _lines(path: str) -> list[str]:
    return read_file(path).decode(errors="replace").splitlines()


def count_pages(pid: int, spans: Spans, kind: Kind) -> int | None:
    """Resident bytes of one kind of page in some ranges of a process's address space.

    From ``/proc/PID/pagemap`` (Documentation/admin-guide/mm/pagemap.rst), which anybody may read of a process of theirs.
    ``None`` where the kernel has no such file or refuses it, once the process is gone, and where the highest byte comes first.
    """
    if sys.byteorder != "little":
        return None
    pages, others = 0, _OTHERS[kind]
    try:
        pagemap = open_file(f"/proc/{pid}/pagemap")
    except OSError:
        return None
    try:
        for first, end in spans:
            for start in range(first, end, _CHUNK):
                entries = read_at(pagemap, (min(start + _CHUNK, end) - start) * _ENTRY, start * _ENTRY)
                pages += len(entries[_ENTRY - 1 :: _ENTRY].translate(None, others))
    except OSError:
        return None
    finally:
        close(pagemap)
    return pages * _PAGE


def shared_once(pids: Iterable[int], siblings: Iterable[int] = ()) -> Tree:
    """Several processes together: a page that k of them share counts 1/k in each (proportional set size).

    Of ``siblings`` only what they share counts, to complete the others' pages; their own is not the family's.
    """
    unreclaimable = resident = shmem = 0
    for pid in pids:
        if fields := _rollup(pid):
            unreclaimable += fields["Pss_Anon"] + fields["Pss_Shmem"] + fields["SwapPss"] + fields["Private_Hugetlb"]
            resident += fields["Pss"]
            shmem += fields["Pss_Shmem"]
    for pid in siblings:
        if fields := _rollup(pid):
            own = fields["Private_Dirty"] + fields["Private_Clean"]
            unreclaimable += fields["Pss_Anon"] - fields["Private_Dirty"]
            resident += fields["Pss"] - own
    return Tree(unreclaimable_bytes=unreclaimable, resident_bytes=resident, shmem_bytes=shmem)


def count_unreclaimable() -> int:
    """Unreclaimable memory of this process, counted in its page tables: 40 ns a page, and no error of per-CPU counters."""
    fields = _rollup("self")
    assert fields is not None, "a running process can read itself"
    return fields["Anonymous"] + fields["Pss_Shmem"] + fields["Swap"] + fields["Private_Hugetlb"]


def _rollup(pid: int | str) -> dict[str, int] | None:
    try:
        lines = read_file(f"/proc/{pid}/smaps_rollup").decode().splitlines()[1:]
    except OSError:
        return None
    return {name: int(value.split()[0]) * 1024 for name, value in (line.split(":", 1) for line in lines)} or None


def private_maps() -> list[tuple[int, int]]:
    """Bounds of our own anonymous writable mappings, the heap included."""
    fields = [line.split() for line in _lines("/proc/self/maps")]
    return [
        (int(start, 16), int(end, 16))
        for (start, end), permissions, inode, *name in (
            (line[0].split("-"), line[1], line[4], *line[5:]) for line in fields
        )
        if permissions == "rw-p" and inode == "0" and name in ([], ["[heap]"])
    ]
