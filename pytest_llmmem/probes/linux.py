"""Linux: ``/proc``. Costs and traps of each file are in ``docs/numbers.md``."""

import contextlib
import glob
import os
import re
import sys
from collections.abc import Iterable
from typing import Final, Literal

from pytest_llmmem.core.readings import Reading, Tree
from pytest_llmmem.probes import cgroups
from pytest_llmmem.probes.host import Gone, HostMemory

assert sys.platform == "linux", "the platform's switch is probes/__init__.py"

METHOD: Final[Literal["kernel", "sampled"]] = "kernel"

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_WRITTEN: Final = re.compile(rb"^write_bytes: (\d+)$", re.MULTILINE)
_MEMINFO: Final = re.compile(rb"MemTotal: *(\d+) kB\n(?:.*\n)*?MemAvailable: *(\d+) kB")
_STATUS: Final = re.compile(
    rb"VmHWM:\s+(\d+) kB\nVmRSS:\s+\d+ kB\nRssAnon:\s+(\d+) kB\nRssFile:\s+(\d+) kB\nRssShmem:\s+(\d+) kB\n"
    rb"(?:.*\n)*?VmSwap:\s+(\d+) kB\n(?:HugetlbPages:\s+(\d+) kB)?"  # a kernel may be built without huge pages
)
_GPU_FILES: Final = ("/dev/nvidia", "/dev/kfd", "/dev/dri/render", "/dev/xpu", "/dev/dxg")


class Memory:
    """Readings of one process through kept descriptors: ``status`` says all, ``statm`` costs a tenth."""

    def __init__(self, pid: int) -> None:
        self._status = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        self._statm = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._glanced = b""
        self._last: Reading | None = None

    def glance(self) -> Reading | None:
        """The process now, by ``statm`` alone; the very reading of the last call when nothing has changed.

        Swap and huge pages are as at the last full reading.
        """
        try:
            text = os.pread(self._statm, 128, 0)
        except ProcessLookupError:
            return None
        if self._last is None or text == self._glanced:
            return self._last or self.read()
        self._glanced = text
        resident, shared = (int(field) * _PAGE for field in text.split(maxsplit=3)[1:3])
        if shared != self._last.file_bytes + self._last.shmem_bytes:
            return self.read()  # of a mapped file or of shared memory? only the full reading tells
        last = self._last
        self._last = Reading(
            anonymous_bytes=resident - shared,
            file_bytes=last.file_bytes,
            shmem_bytes=last.shmem_bytes,
            swap_bytes=last.swap_bytes,
            huge_bytes=last.huge_bytes,
        )
        return self._last

    def read(self) -> Reading | None:
        """The process now; ``None`` once it has no memory left (dead, or a zombie)."""
        self._last = self._read()
        return self._last

    def _read(self) -> Reading | None:
        try:
            match = _STATUS.search(os.pread(self._status, 4096, 0))
        except ProcessLookupError:
            return None
        if match is None:
            return None
        mark, anonymous, file, shmem, swap, huge = (int(field) * 1024 for field in match.groups(default=b"0"))
        return Reading(
            anonymous_bytes=anonymous,
            file_bytes=file,
            shmem_bytes=shmem,
            swap_bytes=swap,
            huge_bytes=huge,
            mark_bytes=mark,
        )

    def close(self) -> None:
        os.close(self._status)
        os.close(self._statm)


def open_memory(pid: int) -> Memory | Gone:
    """Readings of a process; of one that has ended already, there are none."""
    try:
        return Memory(pid)
    except OSError:
        return Gone()


def reset_mark() -> bool:
    """Reset our own ``VmHWM`` to what is resident now (``clear_refs(5)``, proc_pid_clear_refs(5)).

    Only ever from inside and between phases: while another thread maps a file, the write would wait for it and then
    wipe the very spike that the mark is for.
    """
    try:
        descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(descriptor, b"5")
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def private_bytes(pid: int | Literal["self"] = "self") -> int | None:
    """Anonymous pages that this process shares with no other, from ``smaps_rollup`` (milliseconds: once per phase).

    Dirty pages that are not anonymous (a file mapped shared, shared memory) are ``Pss_Dirty - Pss_Anon``, as long as
    they are this process's alone. ``None`` where the kernel has no such file (before 4.14) or refuses it.
    """
    fields = _rollup(pid)
    if fields is None:
        return None
    not_anonymous = max(0, fields.get("Pss_Dirty", fields["Pss_Anon"] + fields["Pss_Shmem"]) - fields["Pss_Anon"])
    return fields["Private_Dirty"] - not_anonymous


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


def faults() -> int:
    """Minor page faults of this process so far: each copies at most one inherited page."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def written_bytes(pid: int | Literal["self"] = "self") -> int | None:
    """What a process, and each child that it has waited for, made the kernel write to storage (``proc_pid_io(5)``).

    Pages of mapped files count as they are written to. Files in memory (tmpfs) do not: they are memory.
    """
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            match = _WRITTEN.search(file.read())
    except OSError:
        return None
    return int(match[1]) if match else None


def mark_error_bytes() -> int:
    """How far ``VmHWM`` can be off: it is raised from a per-CPU counter (``percpu_counter``, lib/percpu_counter.c).

    Each of nCPU processors may hold back max(32, 2 * nCPU) pages: 0.5 MB on 4 of them, 32 MB on 64.
    """
    processors = os.cpu_count() or 1
    return processors * max(32, 2 * processors) * _PAGE


def host_memory() -> HostMemory:
    """``MemTotal`` and ``MemAvailable``, or what the nearest control group above us leaves of them."""
    with open("/proc/meminfo", "rb") as file:
        match = _MEMINFO.search(file.read())
    assert match is not None, "MemAvailable has been there since Linux 3.14"
    total, available = (int(field) * 1024 for field in match.groups())
    limited_by, machine_available = "host", available
    for group in cgroups.own_groups():
        limit = group.limit_bytes()
        if limit is not None and limit < total:
            total, limited_by = limit, str(group.path)
        if limit is not None:
            available = min(available, max(0, limit - group.unreclaimable_bytes()))
    return HostMemory(
        total_bytes=total,
        available_bytes=available,
        machine_available_bytes=machine_available,
        limited_by=limited_by,
    )


def oom_kills_on_host() -> int | None:
    """``oom_kill`` of ``/proc/vmstat``: all OOM kills since boot, in containers too; readable by everybody."""
    try:
        with open("/proc/vmstat", "rb") as file:
            match = re.search(rb"^oom_kill (\d+)$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) if match else None


def gpu_files_there() -> bool:
    """Whether the machine, or the container, has a device file of a GPU: without one no driver can be reached."""
    return any(glob.glob(f"{start}*") for start in _GPU_FILES)


def gpu_files_open(pid: int | None = None) -> str | None:
    """The first GPU device file that a process holds open, which has a driver context then; our own without a pid."""
    folder = f"/proc/{pid or 'self'}/fd"
    with contextlib.suppress(OSError):  # it is gone, or another user's
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                target = os.readlink(f"{folder}/{name}")
                if target.startswith(_GPU_FILES):
                    return target
    return None
