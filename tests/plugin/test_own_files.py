"""Resident are the files that a test mapped itself, whatever the page cache holds of its libraries."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, needs

MB = 10**6
pytestmark = needs("/proc")

LIBRARIES = """
    import ctypes, mmap, re, pytest, time

    def read_libraries():
        '''Make every page of every library resident, as one touch does where the page cache holds large folios.'''
        with open("/proc/self/maps") as maps:
            lines = [line.split(maxsplit=5) for line in maps]
        for address, permissions, _, _, inode, *path in lines:
            if inode != "0" and permissions == "r-xp" or permissions == "r--p":
                start, end = (int(bound, 16) for bound in address.split("-"))
                ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), 22)  # MADV_POPULATE_READ

    def resident_files():
        with open("/proc/self/status") as status:
            return 1024 * int(re.search(r"RssFile:\\s+(\\d+)", status.read())[1])

    def map_file(name):
        with open(name, "rb") as file:
            return mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
"""


def test_pages_of_libraries_are_in_no_peak_but_the_absolute_one(run: Callable[..., Run]) -> None:
    ran = run(
        LIBRARIES
        + """
    @pytest.mark.max_ram("8MB", count="resident", on_breach="stop")
    def test_it():
        before = resident_files()
        read_libraries()
        time.sleep(0.3)
        assert resident_files() - before > 8_000_000
        """
    )

    ran.result.assert_outcomes(passed=1)
    ram, timeline = ran["test_it"].ram, ran["test_it"].timeline
    assert ram is not None
    assert timeline is not None
    assert ram.peak_file_bytes < 2 * MB
    assert ram.absolute_peak_bytes - ram.baseline_bytes > 8 * MB
    assert timeline.file_bytes[-1] < 2 * MB


def test_a_file_that_was_mapped_by_one_test_counts_where_the_next_one_reads_it(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    Path(pytester.path, "weights").write_bytes(b"x" * 40 * MB)

    ran = run(
        LIBRARIES
        + """
    pytestmark = pytest.mark.in_worker(scope="module")

    def test_maps():
        global weights
        weights = map_file("weights")

    def test_reads():
        read_libraries()
        sum(weights[page] for page in range(0, len(weights), mmap.PAGESIZE))

    def test_reads_again():
        sum(weights[page] for page in range(0, len(weights), mmap.PAGESIZE))
        """
    )

    ran.result.assert_outcomes(passed=3)
    read, again = ran["test_reads"].ram, ran["test_reads_again"].ram
    assert read is not None
    assert again is not None
    assert abs(read.peak_file_bytes - 40 * MB) < 2 * MB
    assert 40 * MB < read.peak_resident_bytes < 46 * MB
    assert again.peak_file_bytes < 2 * MB


def test_a_spawned_worker_has_libraries_too(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    Path(pytester.path, "weights").write_bytes(b"x" * 40 * MB)

    ran = run(
        LIBRARIES
        + """
    @pytest.mark.in_worker
    def test_it():
        read_libraries()
        weights = map_file("weights")
        sum(weights[page] for page in range(0, len(weights), mmap.PAGESIZE))
        """,
        "--llm-worker=spawn",
    )

    ram = ran["test_it"].ram
    assert ram is not None
    assert abs(ram.peak_file_bytes - 40 * MB) < 2 * MB
