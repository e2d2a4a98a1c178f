"""macOS: ``proc_pid_rusage``, which tells of any process of the same user and needs no privilege.

The physical footprint is what the kernel's memory limits and Activity Monitor's "Memory" count: dirty, compressed and
swapped pages, and no clean pages of files. The resident set is not the number: what is compressed has left it.

Written from Apple's headers (``sys/resource.h``) and not run yet: ``docs/platforms.md``.
"""

import ctypes
import os
from collections.abc import Callable, Iterable
from typing import Final, Literal

from pytest_llmmem.core.readings import LifetimeMarks, Reading, Tree
from pytest_llmmem.probes.host import Gone, HostMemory, Spans
from pytest_llmmem.probes.portable import sum_of, unreclaimable_of

METHOD: Final[Literal["kernel", "sampled"]] = "kernel"

_VERSION: Final = 4
"""``RUSAGE_INFO_V4``, since macOS 10.13: the first version with the footprint's high-water mark."""
_NUMBERS: Final = (
    "user_time system_time pkg_idle_wkups interrupt_wkups pageins wired_size resident_size phys_footprint "
    "proc_start_abstime proc_exit_abstime child_user_time child_system_time child_pkg_idle_wkups child_interrupt_wkups "
    "child_pageins child_elapsed_abstime diskio_bytesread diskio_byteswritten cpu_time_qos_default "
    "cpu_time_qos_maintenance cpu_time_qos_background cpu_time_qos_utility cpu_time_qos_legacy "
    "cpu_time_qos_user_initiated cpu_time_qos_user_interactive billed_system_time serviced_system_time logical_writes "
    "lifetime_max_phys_footprint instructions cycles billed_energy serviced_energy interval_max_phys_footprint "
    "runnable_time"
)


class Usage(ctypes.Structure):
    """``rusage_info_v4``."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        *((name, ctypes.c_uint64) for name in _NUMBERS.split()),
        # a newer kernel may write more than it was asked for
        ("room", ctypes.c_uint8 * 216),
    )


AskUsage = Callable[[int], Usage | None]
"""The usage of a process; ``None`` when there is no such process of ours."""


def ask_usage(pid: int) -> Usage | None:
    """Read the kernel's counters of a process."""
    usage = Usage()
    failed = ctypes.CDLL(None).proc_pid_rusage(pid, _VERSION, ctypes.byref(usage))
    return None if failed else usage


def reading_of(usage: Usage) -> Reading:
    """A process's memory: the footprint is unreclaimable.

    What the resident set has beyond the footprint can only be pages of files: ``file_bytes`` is their least number.
    """
    footprint: int = usage.phys_footprint
    resident: int = usage.resident_size
    return Reading(
        anonymous_bytes=min(resident, footprint),
        file_bytes=max(0, resident - footprint),
        committed_bytes=footprint,
        lifetime=LifetimeMarks(unreclaimable_bytes=usage.lifetime_max_phys_footprint or None),
    )


class Memory:
    """Readings of one process."""

    def __init__(self, pid: int, ask: AskUsage = ask_usage) -> None:
        self._pid, self._ask = pid, ask

    def read(self) -> Reading | None:
        """The process now; ``None`` once it is gone, a zombie included."""
        usage = self._ask(self._pid)
        return reading_of(usage) if usage is not None and usage.resident_size else None

    def read_growth(self) -> Reading | None:
        """There is nothing cheaper than a reading."""
        return self.read()

    def read_pages(self) -> Reading | None:
        """Read as usual: pages of files cannot be distinguished."""
        return self.read()

    def learn(self, reading: Reading) -> None:
        """Do nothing: no state is kept between readings."""

    def close(self) -> None:
        """Do nothing: no descriptor is open."""


def open_memory(pid: int, libraries: Spans = ()) -> Memory | Gone:  # noqa: ARG001 -- the probe's signature
    """Readings of a process; of one that has ended already, there are none."""
    try:
        os.kill(pid, 0)
    except OSError:
        return Gone()
    return Memory(pid)


def count_unreclaimable() -> int:
    """Unreclaimable memory of this process."""
    return unreclaimable_of(open_memory(os.getpid()).read())


def shared_once(pids: Iterable[int], siblings: Iterable[int] = ()) -> Tree:  # noqa: ARG001 -- the probe's signature
    """Several processes together."""
    return sum_of(open_memory(pid).read() for pid in pids)


def host_memory() -> HostMemory:
    """The machine, as psutil sees it."""
    import psutil

    memory = psutil.virtual_memory()
    return HostMemory(
        total_bytes=memory.total,
        available_bytes=memory.available,
        machine_available_bytes=memory.available,
        limited_by="host",
    )
