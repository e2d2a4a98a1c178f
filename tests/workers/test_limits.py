"""Hard limits, as far as the machine has them."""

import os
from pathlib import Path

import pytest

from pytest_llmmem.probes.cgroups import MemoryGroup, own_group
from pytest_llmmem.workers.cgroup_limiter import CgroupLimiter, delegate
from pytest_llmmem.workers.limits import NoLimiter, build_limiter
from pytest_llmmem.workers.worker import Worker


@pytest.fixture
def unified(tmp_path: Path) -> MemoryGroup:
    """A folder that looks like a version 2 group in which only this process lives."""
    (tmp_path / "cgroup.subtree_control").write_text("")
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    (tmp_path / "llmmem-session").mkdir()
    (tmp_path / "llmmem-session" / "cgroup.procs").write_text("")
    return MemoryGroup(tmp_path, 2)


def test_our_processes_move_into_a_leaf_before_a_group_may_limit_its_children(unified: MemoryGroup) -> None:
    leaf = delegate(unified)

    assert (leaf / "cgroup.procs").read_text() == str(os.getpid())
    assert (unified.path / "cgroup.subtree_control").read_text() == "+memory"


def test_processes_of_others_are_never_moved(unified: MemoryGroup) -> None:
    (unified.path / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")

    with pytest.raises(OSError, match="other processes share pytest's group"):
        delegate(unified)

    assert (unified.path / "cgroup.subtree_control").read_text() == ""


def test_a_group_is_made_and_leaves_nothing_behind() -> None:
    parent = own_group()
    if parent is None or not os.access(parent.path, os.W_OK) or not hasattr(os, "posix_spawnp"):
        pytest.skip("needs a writable memory control group")
    pid = os.posix_spawnp("sleep", ["sleep", "60"], os.environ)
    try:
        group = CgroupLimiter.enclose(pid, 50_000_000, parent)
        (made,) = parent.path.glob(f"llmmem-{pid}-*")
        assert (made / "cgroup.procs").read_text().split() == [str(pid)]
        assert group.oom_kills() == group.killed_at_bytes() == 0
        group.close()
        assert not made.exists()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


class WorkerWithoutJob(Worker):
    """A worker as it is everywhere but on Windows."""

    def __init__(self) -> None:
        self.pid, self._ready = os.getpid(), None

    def reap(self, timeout_s: float) -> None:
        """It lives on."""


def test_watching_needs_no_limiter() -> None:
    limiter, complaint = build_limiter("watch", WorkerWithoutJob(), 1)

    assert isinstance(limiter, NoLimiter)
    assert complaint == ""


def test_a_job_that_there_is_not_is_said_and_watched_instead() -> None:
    limiter, complaint = build_limiter("job", WorkerWithoutJob(), 1)

    assert isinstance(limiter, NoLimiter)
    assert complaint == "enforce='job' needs Windows (a Job Object): watched instead"
