"""The probes say what the operating system's own tools say."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pytest_llmmem import probes
from tests.conftest import needs

MB = 10**6
pytestmark = needs("/proc")


def test_a_reading_is_what_ps_says() -> None:
    program = "x = bytearray(b'x' * 50_000_000); print('ready', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        reading = probes.open_memory(child.pid).read()
        ps = subprocess.run(["ps", "-o", "rss=", "-p", str(child.pid)], capture_output=True, text=True, check=True)
        assert reading is not None
        assert abs(reading.resident_bytes - int(ps.stdout) * 1024) < MB
        assert abs(reading.resident_bytes - psutil.Process(child.pid).memory_info().rss) < MB
    finally:
        child.communicate()


def test_a_process_that_is_gone_has_no_reading() -> None:
    child = subprocess.Popen(["true"])
    child.wait()

    memory = probes.open_memory(child.pid)

    assert memory.read() is None
    memory.close()


def test_the_mark_remembers_a_spike_until_it_is_reset() -> None:
    memory = probes.open_memory(os.getpid())
    assert probes.reset_mark()
    before = memory.read()
    with mmap.mmap(-1, 60 * MB) as spike:
        for page in range(0, 60 * MB, 4096):
            spike[page] = 1
    after = memory.read()
    assert before is not None
    assert after is not None

    assert after.mark_bytes - before.resident_bytes > 55 * MB
    assert after.resident_bytes - before.resident_bytes < 30 * MB
    probes.reset_mark()
    again = memory.read()
    assert again is not None
    assert again.mark_bytes - again.resident_bytes < 5 * MB


def test_shared_memory_and_files_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"x" * 30 * MB)
    memory = probes.open_memory(os.getpid())
    before = memory.read()
    with mmap.mmap(-1, 20 * MB) as shared, file.open() as opened:
        for page in range(0, 20 * MB, 4096):
            shared[page] = 1
        with mmap.mmap(opened.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped:
            sum(mapped[::4096])
            after = memory.read()
    assert before is not None
    assert after is not None

    assert abs(after.shmem_bytes - before.shmem_bytes - 20 * MB) < MB
    assert abs(after.file_bytes - before.file_bytes - 30 * MB) < MB
    assert abs(after.unreclaimable_bytes - before.unreclaimable_bytes - 20 * MB) < 10 * MB


def test_descendants_are_found_through_generations() -> None:
    child = subprocess.Popen(["sh", "-c", "sh -c 'sleep 60 & wait' & wait"], start_new_session=True)
    try:
        while len(found := probes.descendants(child.pid)) < 2:
            pass
        assert {psutil.Process(pid).name() for pid in found} <= {"sh", "sleep"}
    finally:
        os.killpg(child.pid, 9)
        child.wait()


def test_the_host_is_as_psutil_sees_it_or_smaller() -> None:
    host = probes.host_memory()

    assert 0 < host.available_bytes <= host.total_bytes <= psutil.virtual_memory().total


def test_a_container_limit_nearer_than_the_host_counts(tmp_path: Path) -> None:
    from pytest_llmmem.probes.cgroups import MemoryGroup

    two = tmp_path / "two"
    two.mkdir()
    (two / "memory.max").write_text("1000000\n")
    (two / "memory.current").write_text("600000\n")
    (two / "memory.stat").write_text("anon 1\nactive_file 100000\ninactive_file 200000\n")
    (two / "memory.events").write_text("low 0\noom 2\noom_kill 3\n")
    one = tmp_path / "one"
    one.mkdir()
    (one / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (one / "memory.usage_in_bytes").write_text("500\n")
    (one / "memory.stat").write_text("total_active_file 100\ntotal_inactive_file 200\nactive_file 7\n")

    group = MemoryGroup(two, 2)
    assert (group.limit_bytes(), group.unreclaimable_bytes(), group.oom_kills()) == (1000000, 300000, 3)
    group = MemoryGroup(one, 1)
    assert (group.limit_bytes(), group.unreclaimable_bytes(), group.oom_kills()) == (None, 200, None)


def test_the_marks_bound_grows_with_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = {}
    for processors in (4, 64):
        monkeypatch.setattr(os, "cpu_count", lambda n=processors: n)
        bounds[processors] = probes.mark_error_bytes()

    assert bounds == {4: 524288, 64: 33554432}


def test_the_files_that_a_process_has_open_or_mapped_are_named(tmp_path: Path) -> None:
    opened, mapped = tmp_path / "opened.bin", tmp_path / "a mapped one.bin"
    for path in (opened, mapped):
        path.write_bytes(bytes(mmap.PAGESIZE))
    with opened.open("rb"), mapped.open("rb") as file:
        page = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        file.close()

        assert {opened.name, mapped.name} <= probes.open_files(os.getpid())

        page.close()
    assert not {opened.name, mapped.name} & probes.open_files(os.getpid())


def test_a_process_that_is_gone_has_no_files() -> None:
    child = subprocess.Popen(["true"])
    child.wait()

    assert probes.open_files(child.pid) == set()


def test_a_mapping_of_a_file_is_listed_and_its_resident_pages_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(64 * mmap.PAGESIZE))
    before = set(probes.mapped_files())
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as page:
        page.madvise(mmap.MADV_RANDOM)  # or one touched page brings its neighbors
        (span,) = set(probes.mapped_files()) - before
        assert span[1] - span[0] == 64

        for touched in range(5):
            page[touched * mmap.PAGESIZE]

        resident_bytes = probes.count_pages(os.getpid(), (span,), "present")
        assert resident_bytes is not None
        assert 5 * mmap.PAGESIZE <= resident_bytes <= 64 * mmap.PAGESIZE
        page.madvise(mmap.MADV_DONTNEED)
        assert probes.count_pages(os.getpid(), (span,), "present") == 0


def test_swap_is_as_psutil_sees_it() -> None:
    assert probes.swap_bytes() == psutil.swap_memory().total
