"""What macOS says of memory: the layout of its structure, and what its numbers mean. Asked of an emulated kernel."""

import ctypes

from pytest_llmmem.core.readings import LifetimeMarks
from pytest_llmmem.core.segments import Segment
from pytest_llmmem.probes.macos import Memory, Usage, reading_of

MB = 10**6


def test_the_structure_is_the_headers() -> None:
    assert Usage.resident_size.offset == 64
    assert Usage.phys_footprint.offset == 72
    assert Usage.lifetime_max_phys_footprint.offset == 240
    assert Usage.runnable_time.offset == 288


def test_a_kernel_that_writes_more_than_it_was_asked_for_writes_into_the_structure() -> None:
    assert ctypes.sizeof(Usage) == 512


def test_the_footprint_is_unreclaimable_and_compressed_memory_is_in_it() -> None:
    reading = reading_of(Usage(phys_footprint=900 * MB, resident_size=200 * MB, lifetime_max_phys_footprint=950 * MB))

    assert reading.unreclaimable_bytes == 900 * MB
    assert reading.resident_bytes == 200 * MB
    assert reading.lifetime == LifetimeMarks(unreclaimable_bytes=950 * MB)


def test_what_is_resident_beyond_the_footprint_is_files() -> None:
    reading = reading_of(Usage(phys_footprint=50 * MB, resident_size=200 * MB))

    assert (reading.file_bytes, reading.unreclaimable_bytes) == (150 * MB, 50 * MB)


def test_a_process_that_is_gone_has_no_reading() -> None:
    assert Memory(1, ask=lambda _: None).read() is None
    assert Memory(1, ask=lambda _: Usage()).read() is None


def test_a_spike_between_two_readings_is_in_the_footprints_mark() -> None:
    kernel = Usage(phys_footprint=50 * MB, resident_size=60 * MB, lifetime_max_phys_footprint=55 * MB)
    memory = Memory(1, ask=lambda _: kernel)
    before = memory.read()
    assert before is not None
    segment = Segment(before)

    kernel.lifetime_max_phys_footprint = 800 * MB
    after = memory.read()
    assert after is not None
    segment.add(after)

    assert segment.unreclaimable.reported == segment.unreclaimable.certain == 800 * MB
