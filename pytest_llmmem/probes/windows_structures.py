"""The structures of the Windows API that are read and written here, and what their numbers mean.

They are importable everywhere, so that their layout is tested where there is no Windows. ``ctypes.wintypes`` is not used:
its ``DWORD`` has 8 bytes on Linux.
"""

import ctypes
from typing import Final

from pytest_llmmem.core.readings import LifetimeMarks, Reading
from pytest_llmmem.probes.host import HostMemory

DWORD: Final = ctypes.c_uint32

KILL_ON_JOB_CLOSE: Final = 0x2000
"""Every process of a job ends when the last handle of the job is closed: when its owner ends, however it ends."""
DIE_ON_UNHANDLED_EXCEPTION: Final = 0x400
"""A crash ends the process at once, without a dialog."""
JOB_MEMORY: Final = 0x200
"""Commit beyond the limit is refused to the whole job."""


class ProcessMemory(ctypes.Structure):
    """``PROCESS_MEMORY_COUNTERS``. ``pagefile_usage`` is the commit charge, as ``PrivateUsage`` is, since Windows 8."""

    _fields_ = (
        ("size", DWORD),
        ("page_faults", DWORD),
        ("peak_working_set", ctypes.c_size_t),
        ("working_set", ctypes.c_size_t),
        ("peak_paged_pool", ctypes.c_size_t),
        ("paged_pool", ctypes.c_size_t),
        ("peak_nonpaged_pool", ctypes.c_size_t),
        ("nonpaged_pool", ctypes.c_size_t),
        ("pagefile_usage", ctypes.c_size_t),
        ("peak_pagefile_usage", ctypes.c_size_t),
    )


class SystemMemory(ctypes.Structure):
    """``MEMORYSTATUSEX``. Its "page file" is the commit limit of the system or of this process, whichever is lower."""

    _fields_ = (
        ("size", DWORD),
        ("percent_in_use", DWORD),
        ("physical", ctypes.c_uint64),
        ("physical_available", ctypes.c_uint64),
        ("commit_limit", ctypes.c_uint64),
        ("commit_available", ctypes.c_uint64),
        ("virtual", ctypes.c_uint64),
        ("virtual_available", ctypes.c_uint64),
        ("extended_available", ctypes.c_uint64),
    )


class BasicLimits(ctypes.Structure):
    """``JOBOBJECT_BASIC_LIMIT_INFORMATION``."""

    _fields_ = (
        ("process_user_time", ctypes.c_int64),
        ("job_user_time", ctypes.c_int64),
        ("flags", DWORD),
        ("smallest_working_set", ctypes.c_size_t),
        ("largest_working_set", ctypes.c_size_t),
        ("active_processes", DWORD),
        ("affinity", ctypes.c_size_t),
        ("priority_class", DWORD),
        ("scheduling_class", DWORD),
    )


class JobLimits(ctypes.Structure):
    """``JOBOBJECT_EXTENDED_LIMIT_INFORMATION``."""

    _fields_ = (
        ("basic", BasicLimits),
        ("io_counters", ctypes.c_uint64 * 6),
        ("process_memory", ctypes.c_size_t),
        ("job_memory", ctypes.c_size_t),
        ("peak_process_memory", ctypes.c_size_t),
        ("peak_job_memory", ctypes.c_size_t),
    )


class JobAccounting(ctypes.Structure):
    """``JOBOBJECT_BASIC_ACCOUNTING_INFORMATION``."""

    _fields_ = (
        ("user_time", ctypes.c_int64),
        ("kernel_time", ctypes.c_int64),
        ("period_user_time", ctypes.c_int64),
        ("period_kernel_time", ctypes.c_int64),
        ("page_faults", DWORD),
        ("processes", DWORD),
        ("active_processes", DWORD),
        ("terminated_processes", DWORD),
    )


def reading_of(counters: ProcessMemory) -> Reading:
    """A process's memory: commit is unreclaimable, the working set is resident.

    The working set is not split by the kernel. What it has beyond the commit can only be pages of files, so
    ``file_bytes`` is their least number.
    """
    commit: int = counters.pagefile_usage
    working_set: int = counters.working_set
    return Reading(
        anonymous_bytes=min(working_set, commit),
        file_bytes=max(0, working_set - commit),
        committed_bytes=commit,
        lifetime=marks_of(counters),
    )


def marks_of(counters: ProcessMemory) -> LifetimeMarks:
    """The highest commit and the highest working set since the process began."""
    return LifetimeMarks(
        unreclaimable_bytes=counters.peak_pagefile_usage or None, resident_bytes=counters.peak_working_set or None
    )


def host_memory_of(status: SystemMemory) -> HostMemory:
    """The machine: what is left is the RAM that is available, or the commit, if less of that is left."""
    by_commit = status.commit_available < status.physical_available
    return HostMemory(
        total_bytes=min(status.physical, status.commit_limit),
        available_bytes=min(status.physical_available, status.commit_available),
        machine_available_bytes=status.physical_available,
        limited_by="the commit limit" if by_commit else "host",
    )
