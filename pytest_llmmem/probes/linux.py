"""Linux: ``/proc``. Costs and traps of each file are in ``docs/numbers.md``."""

import sys

# above the other imports: type checkers of other platforms stop here, and what is imported below is not there for them
assert sys.platform == "linux", "the platform's switch is probes/__init__.py"

import contextlib
import dataclasses
import glob
import os
import re
from typing import Final, Literal

from pytest_llmmem.core.readings import Reading
from pytest_llmmem.probes import cgroups
from pytest_llmmem.probes.host import Gone, HostMemory, Spans
from pytest_llmmem.probes.linux_faults import Faults
from pytest_llmmem.probes.linux_pages import count_pages
from pytest_llmmem.probes.system_files import close, list_folder, open_file, read_at, read_file, read_link, write_file

METHOD: Final[Literal["kernel", "sampled"]] = "kernel"

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_FEW_FILE_BYTES: Final = 1_000_000
"""Below this size, it is not worth counting which pages of files belong to libraries."""
_WRITTEN: Final = re.compile(rb"^write_bytes: (\d+)$", re.MULTILINE)
_MEMINFO: Final = re.compile(rb"MemTotal: *(\d+) kB\n(?:.*\n)*?MemAvailable: *(\d+) kB")
_STATUS: Final = re.compile(
    rb"VmHWM:\s+(\d+) kB\nVmRSS:\s+\d+ kB\nRssAnon:\s+(\d+) kB\nRssFile:\s+(\d+) kB\nRssShmem:\s+(\d+) kB\n"
    rb"(?:.*\n)*?VmSwap:\s+(\d+) kB\n(?:HugetlbPages:\s+(\d+) kB)?"  # a kernel may be built without huge pages
)
_SIZES: Final = re.compile(rb"^(\w+):\s+(\d+) kB$", re.MULTILINE)
_GPU_FILES: Final = ("/dev/nvidia", "/dev/kfd", "/dev/dri/render", "/dev/xpu", "/dev/dxg")


class Memory:
    """Readings of one process through kept descriptors: ``status`` has all values, ``statm`` costs a tenth."""

    def __init__(self, pid: int, libraries: Spans) -> None:
        """``libraries`` are the stretches whose pages of files are not the test's (``mappings().files``)."""
        with contextlib.ExitStack() as opened:
            self._status, self._statm = (_opened(f"/proc/{pid}/{name}", opened) for name in ("status", "statm"))
            self._faults = opened.enter_context(contextlib.closing(Faults(pid)))
            self.close = opened.pop_all().close
        self._pid, self._libraries = pid, libraries
        self._library_bytes = 0
        self._counted_at_bytes: int | None = None
        """All pages of files when the libraries' were last counted."""
        self._glanced = b""
        self._last: Reading | None = None

    def read_growth(self) -> Reading | None:
        """The process now, by ``statm`` alone; the very reading of the last call when nothing has changed.

        Swap and huge pages are as at the last full reading.
        """
        try:
            text = read_at(self._statm, 128, 0)
        except ProcessLookupError:
            return None
        if self._last is None or text == self._glanced:
            return self._last or self.read()
        self._glanced = text
        resident, shared = (int(field) * _PAGE for field in text.split(maxsplit=3)[1:3])
        last = self._last
        if shared != last.all_files_bytes + last.shmem_bytes:
            return self.read()  # of a mapped file or of shared memory? only the full reading tells
        self._last = Reading(
            anonymous_bytes=resident - shared,
            file_bytes=last.file_bytes,
            library_bytes=last.library_bytes,
            shmem_bytes=last.shmem_bytes,
            swap_bytes=last.swap_bytes,
            huge_bytes=last.huge_bytes,
        )
        return self._last

    def read(self) -> Reading | None:
        """The process now, with the libraries' pages as last counted; ``None`` once it has no memory left.

        It has none when it is dead, or a zombie.
        """
        try:
            match = _STATUS.search(read_at(self._status, 4096, 0))
        except ProcessLookupError:
            match = None
        self._last = self._reading(match) if match else None
        return self._last

    def read_pages(self) -> Reading | None:
        """The same, after the libraries' pages are counted again if many of them changed (0.7 ms).

        At first all pages of files are the libraries'.
        """
        reading = self.read()
        if reading is None:
            return None
        files = reading.all_files_bytes
        counted: int | None = None
        if self._counted_at_bytes is None:
            counted = files
        elif abs(files - self._counted_at_bytes) > _FEW_FILE_BYTES:
            counted = count_pages(self._pid, self._libraries, "file")
        if counted is not None:
            self._library_bytes, self._counted_at_bytes = counted, files
            library = min(files, self._library_bytes)
            self._last = dataclasses.replace(reading, file_bytes=files - library, library_bytes=library)
        return self._last

    def learn(self, reading: Reading) -> None:
        """Take over what the process has counted of itself."""
        self._library_bytes, self._counted_at_bytes = reading.library_bytes, reading.all_files_bytes
        self._last = None

    def _reading(self, status: re.Match[bytes]) -> Reading:
        mark, anonymous, files, shmem, swap, huge = (int(field) * 1024 for field in status.groups(default=b"0"))
        library = min(files, self._library_bytes)
        return Reading(
            anonymous_bytes=anonymous,
            file_bytes=files - library,
            library_bytes=library,
            shmem_bytes=shmem,
            swap_bytes=swap,
            huge_bytes=huge,
            mark_bytes=mark,
            faulted_bytes=self._faults.read(),  # after the status, so that no fault before it is missed
        )


def _opened(path: str, stack: contextlib.ExitStack) -> int:
    """A descriptor that is closed with the stack."""
    descriptor = open_file(path)
    stack.callback(close, descriptor)
    return descriptor


def open_memory(pid: int, libraries: Spans = ()) -> Memory | Gone:
    """Readings of a process; of one that has ended already, there are none."""
    try:
        return Memory(pid, libraries)
    except OSError:
        return Gone()


def status_sizes(pid: int) -> dict[str, int]:
    """The sizes in ``/proc/PID/status`` in bytes, by name, all of one instant. Raises ``OSError`` once it is gone."""
    return {name.decode(): int(size) * 1024 for name, size in _SIZES.findall(read_file(f"/proc/{pid}/status"))}


def reset_mark() -> bool:
    """Reset our own ``VmHWM`` to what is resident now (``clear_refs(5)``, proc_pid_clear_refs(5)).

    Only ever from inside and between phases: while another thread maps a file, the write would wait for it and then
    wipe the very spike that the mark is for.
    """
    try:
        write_file("/proc/self/clear_refs", b"5")
    except OSError:
        return False
    return True


def written_bytes(pid: int | Literal["self"] = "self") -> int | None:
    """Bytes that a process, and each child that it has waited for, made the kernel write to storage (``proc_pid_io(5)``).

    Pages of mapped files count as they are written to. Files in memory (tmpfs) do not: they are memory.
    """
    try:
        match = _WRITTEN.search(read_file(f"/proc/{pid}/io"))
    except OSError:
        return None
    return int(match[1]) if match else None


def mark_error_bytes() -> int:
    """Error of ``VmHWM``: it is updated from a per-CPU counter (``percpu_counter``, lib/percpu_counter.c).

    Each of nCPU processors may hold back max(32, 2 * nCPU) pages: 0.5 MB on 4 of them, 32 MB on 64.
    """
    processors = os.cpu_count() or 1
    return processors * max(32, 2 * processors) * _PAGE


def host_memory() -> HostMemory:
    """``MemTotal`` and ``MemAvailable``, or what the nearest control group above us leaves of them."""
    match = _MEMINFO.search(read_file("/proc/meminfo"))
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


def swap_bytes() -> int:
    """Swap of the machine, zram included; 0 where it is unknown."""
    try:
        lines = read_file("/proc/swaps").splitlines()[1:]
    except OSError:
        return 0
    return sum(int(line.split()[2]) * 1024 for line in lines)


def oom_kills_on_host() -> int | None:
    """``oom_kill`` of ``/proc/vmstat``: all OOM kills since boot, in containers too; readable by everybody."""
    try:
        match = re.search(rb"^oom_kill (\d+)$", read_file("/proc/vmstat"), re.MULTILINE)
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
        for name in list_folder(folder):
            with contextlib.suppress(OSError):
                target = read_link(f"{folder}/{name}")
                if target.startswith(_GPU_FILES):
                    return target
    return None
