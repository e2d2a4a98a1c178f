"""What a worker and its children hold together, while they come and go: real processes, and a parent that is late."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_llmmem import probes
from pytest_llmmem.core.meter import Meter
from pytest_llmmem.core.readings import NOTHING, Reading, Tree
from pytest_llmmem.supervision.process_tree import ProcessTree
from tests.conftest import needs

pytestmark = needs("/proc")

WORKER = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", ""])
os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
print(flush=True)
sys.stdin.read()
"""
"""Its child has ended, and has not been waited for."""
MB = 10**6
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


# -- children that live: each is the same program, which sleeps until its parent ends

PARENT = """
import os, subprocess, sys
program = "import os, sys; held = b'x' * int(os.environ.get('HELD', 0)); print(flush=True); sys.stdin.read()"
environments = eval(sys.argv[1])
children = [
    subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, env={**os.environ, **each}) for each in environments
]
for child in children:
    child.stdout.readline()
print(*(child.pid for child in children), flush=True)
sys.stdin.read()
"""


@dataclass
class Family:
    """A parent of living children, which is asked for the memory of all of them."""

    process: "subprocess.Popen[str]"
    children: list[int]
    ends_one_each_time: bool = False
    bytes_each: int = 1
    """What each living child is said to hold."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def siblings(self) -> tuple[int, ...]:
        return ()

    def tree_with(self, reading: Reading) -> Tree:
        return Tree(unreclaimable_bytes=reading.unreclaimable_bytes, resident_bytes=reading.resident_bytes)

    def shared_with(self, children: Iterable[int]) -> Tree:
        held = sum(map(probes.has_memory, children)) * self.bytes_each
        if self.ends_one_each_time:
            self.end_one()
        return Tree(unreclaimable_bytes=held, resident_bytes=10 * held)

    def end_one(self) -> None:
        pid = self.children.pop()
        os.kill(pid, signal.SIGKILL)
        while probes.has_memory(pid):
            time.sleep(0.001)


@contextlib.contextmanager
def family(*environments: dict[str, str], **options: int) -> Generator[Family]:
    program = [sys.executable, "-c", PARENT, repr(environments)]
    with subprocess.Popen(program, stdin=-1, stdout=-1, text=True) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        yield Family(parent, children, **options)


def test_children_that_come_and_go_at_every_attempt_count_by_the_lowest_of_them() -> None:
    with family({}, {}, {}, {}, ends_one_each_time=True) as worker:
        tree = ProcessTree(worker).sample(OWN)  # type: ignore[arg-type]

    # a page whose owner ends meanwhile is counted in those that are left, too
    assert tree == Tree(unreclaimable_bytes=2, resident_bytes=20)


def test_children_are_told_with_the_moment_at_which_all_held_most() -> None:
    meter = Meter()
    window = meter.open("test", OWN, NOTHING)
    with family({}, {}, bytes_each=30 * MB) as worker:
        tree = ProcessTree(worker)  # type: ignore[arg-type]
        assert tree.told(window) is None
        meter.sample_tree(tree.sample(OWN))
        worker.end_one()
        meter.sample_tree(tree.sample(OWN))

        children = tree.told(window)

    assert children is not None
    assert (children.bytes, children.count, children.in_peak) == (60 * MB - 4, 2, True)
    assert tree.told(None) is None
    meter.sample(Reading(anonymous_bytes=200 * MB))  # later the worker alone holds more
    later = tree.told(window)
    assert later is not None
    assert not later.in_peak


def test_children_that_end_right_after_their_memory_was_read_are_counted_with_it() -> None:
    window = Meter().open("test", OWN, NOTHING)
    with family({}, {}, {}, {}, ends_one_each_time=True, bytes_each=30 * MB) as worker:
        tree = ProcessTree(worker)  # type: ignore[arg-type]
        tree.sample(OWN)
        children = tree.told(window)

    assert children is not None
    assert (children.bytes, children.count) == (60 * MB - 4, 2)


def test_children_that_hold_next_to_nothing_are_not_told() -> None:
    with family({}, {}) as worker:
        tree = ProcessTree(worker)  # type: ignore[arg-type]
        tree.sample(OWN)

        assert tree.told(Meter().open("test", OWN, NOTHING)) is None


def test_each_rank_of_a_launch_has_its_own_peak() -> None:
    ranks = [{"RANK": str(rank), "WORLD_SIZE": "2", "HELD": str((2 - rank) * 40_000_000)} for rank in range(2)]
    with family(ranks[1], {}, ranks[0]) as worker:
        tree = ProcessTree(worker)  # type: ignore[arg-type]
        for _ in range(2):
            tree.sample(OWN)

        first, second = tree.ranks()

    assert [each.rank for each in (first, second)] == [0, 1]
    assert abs(first.peak_bytes - second.peak_bytes - 40_000_000) < 2_000_000
    assert first.peak_resident_bytes >= first.peak_bytes


def test_a_rank_that_has_just_ended_keeps_the_peak_that_it_had() -> None:
    with family({"RANK": "0", "WORLD_SIZE": "1", "HELD": "40000000"}) as worker:
        tree = ProcessTree(worker)  # type: ignore[arg-type]
        tree.sample(OWN)
        before = tree.ranks()
        worker.end_one()
        tree.sample(OWN)

        assert tree.ranks() == before
        assert before[0].peak_bytes > 40_000_000


VFORK = """
import os, sys
os.posix_spawnp("true", ["true"], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)])
"""
"""Its child waits between ``vfork`` and ``exec``, until somebody opens the pipe for writing."""


def test_a_child_that_still_runs_in_its_parents_memory_is_none_of_its_own(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    with subprocess.Popen([sys.executable, "-c", VFORK, str(fifo)], text=True) as parent:
        while not probes.descendants(parent.pid):
            time.sleep(0.01)
        tree = ProcessTree(Family(parent, []))  # type: ignore[arg-type]
        alone = tree.sample(OWN) is None and not tree.had_children
        fifo.open("w", encoding="utf-8").close()

    assert alone
