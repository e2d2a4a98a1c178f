"""What a worker and its children hold together, while they come and go: real processes, and a parent that is late."""

import os
import subprocess
import sys
from collections.abc import Generator, Iterable
from dataclasses import dataclass

import pytest

from pytest_llmmem.core.readings import Reading, Tree
from pytest_llmmem.supervision.process_tree import ProcessTree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared pages are known on Linux")

WORKER = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", ""])
os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
print(flush=True)
sys.stdin.read()
"""
"""Its child has ended, and has not been waited for."""
SEEN = Tree(unreclaimable_bytes=10, resident_bytes=20)
OWN = Reading(anonymous_bytes=4)
TOO_LATE = Tree(unreclaimable_bytes=1000, resident_bytes=2000)


@dataclass
class Worker:
    """What ``ProcessTree`` wants of one. It ends while it is read, once it has been read so often as ``lives`` says."""

    process: "subprocess.Popen[str]"
    lives: int
    """How often it can be read before it ends."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def siblings(self) -> tuple[int, ...]:
        return (os.getpid(),)

    def tree_with(self, reading: Reading) -> Tree:
        return Tree(unreclaimable_bytes=reading.unreclaimable_bytes, resident_bytes=reading.resident_bytes)

    def shared_with(self, children: Iterable[int]) -> Tree:
        assert children
        self.lives -= 1
        if self.lives >= 0:
            return SEEN
        self.process.kill()
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return TOO_LATE


@pytest.fixture
def process() -> "Generator[subprocess.Popen[str]]":
    with subprocess.Popen([sys.executable, "-c", WORKER], stdin=-1, stdout=-1, text=True) as started:
        assert started.stdout is not None
        started.stdout.readline()
        yield started
        started.kill()


def test_a_worker_that_lives_is_read_once(process: "subprocess.Popen[str]") -> None:
    worker = Worker(process, lives=1)

    assert ProcessTree(worker).sample(OWN) == SEEN  # type: ignore[arg-type]


def test_a_worker_that_ended_while_it_was_read_tells_nothing(process: "subprocess.Popen[str]") -> None:
    # those that shared its pages were read after it had gone: they hold all of them then, and so did it
    worker = Worker(process, lives=0)

    assert ProcessTree(worker).sample(OWN) is None  # type: ignore[arg-type]
