"""A limited group, on folders with the files that the kernel has there in version 1 and in version 2."""

import mmap
import os
from pathlib import Path

import pytest

from pytest_llmmem.fit.groups import LimitedGroup
from pytest_llmmem.probes.cgroups import MemoryGroup

MB = 10**6
V2_STATISTICS = """\
anon 4046848
file 135168
file_mapped 0
inactive_file 69632
active_file 65536
workingset_refault_anon 7
workingset_refault_file 1500
workingset_activate_file 0
"""
V1_STATISTICS = """\
cache 135168
rss 4046848
mapped_file 0
workingset_refault_anon 7
workingset_refault_file 1500
total_workingset_refault_file 9000
"""


def folder_of(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Version 2: ``cgroup.procs`` and so on."""
    return folder_of(tmp_path, cgroup__procs="", memory__max="max", memory__swap__max="max", memory__stat=V2_STATISTICS)


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """Version 1, with swap accounted."""
    files = {"memory__limit_in_bytes": "9223372036854771712", "memory__memsw__limit_in_bytes": "9223372036854771712"}
    return folder_of(tmp_path, cgroup__procs="", memory__stat=V1_STATISTICS, **files)


def test_version_2_gets_a_limit_and_no_swap(two: Path) -> None:
    LimitedGroup(MemoryGroup(two, 2)).limit_to(100 * MB)

    # a file of the kernel's takes a new value; one on a disk keeps what is longer
    assert (two / "memory.max").read_text() == "100000000"
    assert (two / "memory.swap.max").read_text().startswith("0")


def test_version_1_gets_the_same_limit_for_memory_and_for_memory_with_swap(one: Path) -> None:
    LimitedGroup(MemoryGroup(one, 1)).limit_to(100 * MB)

    assert (one / "memory.limit_in_bytes").read_text().startswith("100000000")
    assert (one / "memory.memsw.limit_in_bytes").read_text().startswith("100000000")


def test_a_kernel_without_swap_has_no_file_for_it(two: Path) -> None:
    (two / "memory.swap.max").unlink()

    LimitedGroup(MemoryGroup(two, 2)).limit_to(100 * MB)

    assert (two / "memory.max").read_text() == "100000000"


@pytest.mark.parametrize("version", [1, 2])
def test_pages_that_were_read_again_are_counted(version: int, tmp_path: Path) -> None:
    folder_of(tmp_path, memory__stat=V1_STATISTICS if version == 1 else V2_STATISTICS)
    group = MemoryGroup(tmp_path, 1 if version == 1 else 2)

    assert LimitedGroup(group).refaulted_bytes() == 1500 * mmap.PAGESIZE


def test_a_kernel_that_does_not_count_them_is_unknown_and_not_zero(two: Path) -> None:
    (two / "memory.stat").write_text("anon 5\nfile 6\n")

    assert LimitedGroup(MemoryGroup(two, 2)).refaulted_bytes() is None


def test_a_process_is_moved_in_by_its_number(two: Path) -> None:
    LimitedGroup(MemoryGroup(two, 2)).enter(4711)

    assert (two / "cgroup.procs").read_text() == "4711"


def test_a_version_2_group_that_others_share_is_left_as_it_is(two: Path) -> None:
    folder_of(two, cgroup__subtree_control="", cgroup__procs=f"{os.getpid()}\n1\n")

    with pytest.raises(OSError, match="other processes share pytest's group"):
        LimitedGroup.make(100 * MB, parent=MemoryGroup(two, 2))

    assert not list(two.glob("llmmem*"))


def test_a_group_whose_limit_cannot_be_set_is_removed_again(two: Path) -> None:
    folder_of(two, cgroup__subtree_control="memory")

    with pytest.raises(OSError, match=r"memory\.max"):  # the folder of a disk gets no files of the kernel's
        LimitedGroup.make(100 * MB, parent=MemoryGroup(two, 2))

    assert not list(two.glob("llmmem-fit*"))
