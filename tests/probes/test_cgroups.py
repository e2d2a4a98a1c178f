"""Which control group is ours, from the kernel's own words in version 1, version 2 and both."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_llmmem.probes import cgroups
from pytest_llmmem.probes.cgroups import MemoryGroup

Kernel = Callable[..., None]
SCOPE = "/user.slice/user-1000.slice/run-r1.scope"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Has ``/proc/self/cgroup`` and ``/proc/self/mountinfo`` say something else."""

    def says(*, groups: str, mounts: str) -> None:
        texts = {"/proc/self/cgroup": groups, "/proc/self/mountinfo": mounts}
        monkeypatch.setattr(cgroups, "_lines", lambda path: texts[path].splitlines())

    return says


def own_group() -> MemoryGroup | None:
    return cgroups.own_group.__wrapped__()


def test_a_unified_hierarchy_has_one_group_for_all_controllers(kernel: Kernel, tmp_path: Path) -> None:
    (group := tmp_path / SCOPE[1:]).mkdir(parents=True)
    kernel(groups=f"0::{SCOPE}", mounts=f"30 23 0:26 / {tmp_path} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate")

    assert own_group() == MemoryGroup(group, 2)


def test_a_container_sees_its_own_group_as_the_root(kernel: Kernel, tmp_path: Path) -> None:
    kernel(groups="0::/kubepods/pod1/abc", mounts=f"30 23 0:26 /kubepods/pod1/abc {tmp_path} ro - cgroup2 cgroup rw")

    assert own_group() == MemoryGroup(tmp_path, 2)


def test_the_path_of_the_host_is_not_looked_for_in_a_container(kernel: Kernel, tmp_path: Path) -> None:
    kernel(groups="0::/docker/abc", mounts=f"30 23 0:26 / {tmp_path} ro - cgroup2 cgroup rw")

    assert own_group() == MemoryGroup(tmp_path, 2)


def test_where_both_are_mounted_the_one_with_the_memory_controller_counts(kernel: Kernel, tmp_path: Path) -> None:
    (group := tmp_path / "memory" / "job").mkdir(parents=True)
    (tmp_path / "unified").mkdir()
    kernel(
        groups="4:memory:/job\n1:name=systemd:/\n0::/",
        mounts=f"33 32 0:29 / {tmp_path}/unified rw - cgroup2 cgroup2 rw\n"
        f"36 32 0:32 / {tmp_path}/cpu rw - cgroup cgroup rw,cpu\n"
        f"37 32 0:33 / {tmp_path}/memory rw - cgroup cgroup rw,memory",
    )

    assert own_group() == MemoryGroup(group, 1)


def test_without_a_mounted_hierarchy_there_is_no_group(kernel: Kernel) -> None:
    kernel(groups="0::/", mounts="22 1 8:1 / / rw - ext4 /dev/sda1 rw")

    assert own_group() is None
