"""Whose a process's pages are: its libraries', a file's that it mapped later, inherited ones, and new ones."""

import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_llmmem import probes
from tests.conftest import needs

MB = 10**6
pytestmark = needs("/proc")


def in_a_process(program: str) -> list[int]:
    """The numbers that a fresh interpreter prints, in bytes."""
    prelude = "import ctypes, mmap, os\nfrom pytest_llmmem import probes\n"
    ran = subprocess.run([sys.executable, "-c", prelude + program], capture_output=True, text=True, check=True)
    return [int(number) for number in ran.stdout.split()]


def rss_file() -> int:
    match = re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert match is not None
    return int(match[1]) * 1024


def test_all_pages_of_files_are_found_in_the_mappings() -> None:
    counted = probes.count_pages(os.getpid(), probes.mappings().files, "file")

    assert counted is not None
    assert abs(counted - rss_file()) < MB


def test_a_file_that_is_mapped_later_is_told_from_the_libraries(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"x" * 30 * MB)

    files, library = in_a_process(
        f"""
with open({str(tmp_path / "weights")!r}) as file:
    memory = probes.open_memory(os.getpid(), probes.mappings().files)
    memory.read_pages()
    mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    sum(mapped[:: mmap.PAGESIZE])
    reading = memory.read_pages()
    print(reading.file_bytes, reading.library_bytes)
"""
    )

    assert abs(files - 30 * MB) < MB
    assert library > MB


def test_library_pages_that_are_touched_later_are_the_libraries() -> None:
    before, after, library = in_a_process(
        """
libc = ctypes.CDLL(None)
import _ssl  # a large library that nothing here has called
mappings = probes.mappings()
memory = probes.open_memory(os.getpid(), mappings.files)
before = memory.read_pages()
for first, end in mappings.files:
    libc.madvise(ctypes.c_void_p(first * mmap.PAGESIZE), ctypes.c_size_t((end - first) * mmap.PAGESIZE), 22)
after = memory.read_pages()
print(before.file_bytes, after.file_bytes, after.library_bytes - before.library_bytes)
"""
    )

    assert library > MB
    assert abs(after - before) < MB


def test_a_process_that_is_watched_tells_what_it_counted_itself(tmp_path: Path) -> None:
    memory = probes.open_memory(os.getpid(), probes.mappings().files)
    counted = probes.open_memory(os.getpid(), probes.mappings().files).read_pages()
    assert counted is not None

    memory.learn(counted)

    reading = memory.read()
    assert reading is not None
    assert reading.library_bytes == counted.library_bytes
    memory.close()


def test_inherited_pages_are_shared_until_they_are_written_to() -> None:
    copied, new = in_a_process(
        """
inherited = bytearray(b"x" * 40_000_000)
private = probes.mappings().private
if os.fork() == 0:
    pid = os.getpid()
    before = probes.count_pages(pid, private, "shared")
    inherited[:20_000_000:mmap.PAGESIZE] = b"y" * len(range(0, 20_000_000, mmap.PAGESIZE))
    copied = probes.count_pages(pid, private, "shared")
    new = bytearray(b"z" * 30_000_000)
    print(before - copied, copied - probes.count_pages(pid, private, "shared"), flush=True)
    os._exit(0)
os.wait()
"""
    )

    assert abs(copied - 20 * MB) < MB
    assert new < MB


def test_a_process_that_is_gone_has_no_pages() -> None:
    child = subprocess.Popen(["true"])
    child.wait()

    assert probes.count_pages(child.pid, ((0, 1),), "file") is None


def test_a_tmpfs_is_no_file() -> None:
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK):
        pytest.skip("needs a tmpfs")
    path = shm / f"llmmem-test-{os.getpid()}"
    path.write_bytes(b"x" * MB)
    try:
        with path.open("rb") as file:
            before = probes.mappings()
            mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
            after = probes.mappings()
            mapped.close()
    finally:
        path.unlink()

    assert after.files == before.files


@pytest.mark.parametrize("huge", [False, True], ids=["small pages", "huge pages"])
def test_anonymous_memory_grows_by_no_more_than_page_faults_brought(*, huge: bool) -> None:
    grown, faulted = in_a_process(
        f"""
memory = probes.open_memory(os.getpid())
before = memory.read()
block = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
if {huge}:
    block.madvise(mmap.MADV_HUGEPAGE)
for page in range(0, 64 << 20, mmap.PAGESIZE):
    block[page] = 1
after = memory.read()
print(after.anonymous_bytes - before.anonymous_bytes, after.faulted_bytes - before.faulted_bytes)
"""
    )

    assert grown >= 64 << 20
    assert faulted >= grown
    if not huge:
        assert faulted < grown + 4 * MB


def test_a_mapped_file_brings_many_pages_with_one_fault(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"x" * 64 * MB)

    grown, faulted = in_a_process(
        f"""
with open({str(tmp_path / "weights")!r}) as file:
    memory = probes.open_memory(os.getpid())
    before = memory.read()
    mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    sum(mapped[page] for page in range(0, len(mapped), mmap.PAGESIZE))
    after = memory.read()
    print(after.file_bytes - before.file_bytes, after.faulted_bytes - before.faulted_bytes)
"""
    )

    assert abs(grown - 64 * MB) < MB
    assert faulted < grown / 4
