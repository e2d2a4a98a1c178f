"""What Windows says of memory: the layout of its structures, and what their numbers mean."""

import ctypes

import pytest

from pytest_llmmem.core.readings import LifetimeMarks
from pytest_llmmem.probes.windows_structures import (
    BasicLimits,
    JobAccounting,
    JobLimits,
    ProcessMemory,
    SystemMemory,
    host_memory_of,
    reading_of,
)

MB = 10**6


@pytest.mark.parametrize(
    ("structure", "size"),
    [(ProcessMemory, 72), (SystemMemory, 64), (BasicLimits, 64), (JobLimits, 144), (JobAccounting, 48)],
)
def test_a_structure_has_the_size_that_the_kernel_checks(structure: type[ctypes.Structure], size: int) -> None:
    assert ctypes.sizeof(structure) == size


@pytest.mark.parametrize(
    ("structure", "field", "offset"),
    [
        (ProcessMemory, "working_set", 16),
        (ProcessMemory, "peak_pagefile_usage", 64),
        (SystemMemory, "commit_available", 32),
        (BasicLimits, "flags", 16),
        (JobLimits, "job_memory", 120),
        (JobLimits, "peak_job_memory", 136),
        (JobAccounting, "active_processes", 40),
    ],
)
def test_a_field_lies_where_the_kernel_writes_it(structure: type[ctypes.Structure], field: str, offset: int) -> None:
    assert getattr(structure, field).offset == offset


def test_commit_that_was_never_touched_is_unreclaimable_and_not_resident() -> None:
    reading = reading_of(ProcessMemory(working_set=30 * MB, pagefile_usage=500 * MB))

    assert reading.unreclaimable_bytes == 500 * MB
    assert reading.resident_bytes == reading.counted_resident_bytes == 30 * MB
    assert reading.used_bytes == 500 * MB


def test_what_the_working_set_has_beyond_the_commit_is_files() -> None:
    reading = reading_of(ProcessMemory(working_set=300 * MB, pagefile_usage=20 * MB))

    assert reading.unreclaimable_bytes == 20 * MB
    assert reading.resident_bytes == 300 * MB
    assert reading.file_bytes == 280 * MB


def test_marks_that_are_zero_are_unknown() -> None:
    counters = ProcessMemory(working_set=MB, pagefile_usage=MB, peak_working_set=2 * MB)

    assert reading_of(counters).lifetime == LifetimeMarks(resident_bytes=2 * MB)


def test_the_machine_ends_where_commit_does() -> None:
    status = SystemMemory(physical=16, physical_available=10, commit_limit=20, commit_available=3)

    machine = host_memory_of(status)

    assert (machine.total_bytes, machine.available_bytes, machine.machine_available_bytes) == (16, 3, 10)
    assert machine.limited_by == "the commit limit"


def test_the_machine_ends_where_ram_does() -> None:
    machine = host_memory_of(SystemMemory(physical=16, physical_available=10, commit_limit=40, commit_available=30))

    assert (machine.total_bytes, machine.available_bytes, machine.limited_by) == (16, 10, "host")
