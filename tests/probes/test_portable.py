"""What psutil is asked for where the kernel is not asked itself: names that psutil 5.9 has, and 8 does not rename.

The stand-in has these names and no other, so that a further one fails here.
"""

import os
import sys
from types import SimpleNamespace

import pytest

from pytest_llmmem.probes import macos, portable


class StandInError(Exception):
    """psutil's ``Error``."""


class Process:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        if pid == 0:
            raise StandInError
        if pid == -1:
            raise OSError(87, "Invalid parameter")

    def children(self, recursive: bool) -> list["Process"]:
        return [Process(self.pid + 1), Process(self.pid + 2)] if recursive else []

    def cmdline(self) -> list[str]:
        return ["python", "train.py"]

    def environ(self) -> dict[str, str]:
        return {"RANK": "1"}


@pytest.fixture(autouse=True)
def names_of_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    names = SimpleNamespace(
        Error=StandInError,
        Process=Process,
        pid_exists=lambda pid: pid == os.getpid(),
        virtual_memory=lambda: SimpleNamespace(total=16, available=5),
    )
    monkeypatch.setitem(sys.modules, "psutil", names)


def test_processes_below_another_are_listed() -> None:
    assert portable.descendants(7) == (8, 9)


def test_the_environment_and_the_command_of_a_process_are_read() -> None:
    assert portable.environment(7) == {"RANK": "1"}
    assert portable.command(7) == ("python", "train.py")


@pytest.mark.parametrize("pid", [0, -1], ids=["gone", "ending"])
def test_a_process_that_is_gone_has_none_of_them(pid: int) -> None:
    assert portable.descendants(pid) == ()
    assert portable.environment(pid) == {}
    assert portable.command(pid) == ()
    assert not portable.has_memory(pid)


def test_a_process_that_lives_has_memory() -> None:
    assert portable.has_memory(os.getpid())


def test_the_machine_is_as_psutil_says() -> None:
    host = macos.host_memory()

    assert (host.total_bytes, host.available_bytes, host.machine_available_bytes) == (16, 5, 5)
