"""Processes that share a device of a declared size: who runs together, who waits, and what the dead leave behind."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_llmmem.workers.memory_queue import QueueTicket, Reservation

CARD = 100
PROGRAM = """
import sys
from pathlib import Path
from pytest_llmmem.workers.memory_queue import Reservation, QueueTicket

resource, size = sys.argv[2], int(sys.argv[3])
place = QueueTicket.take(Path(sys.argv[1]), [Reservation(resource=resource, size_bytes=size, capacity_bytes=100)])
print("queued", flush=True)
place.wait()
print("in", flush=True)
input()
place.leave()
print("out", flush=True)
"""


class Visitor:
    """A process with a reservation; ``told`` is the last that it was heard to say."""

    def __init__(self, folder: Path, size: int, resource: str = "cuda:0") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), resource, str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hears("queued")

    def hears(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == word

    def leaves(self) -> None:
        self._process.communicate("\n")

    def dies(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def arrive(tmp_path: Path) -> Iterator[Callable[..., Visitor]]:
    visitors = []

    def arrive_(size: int, resource: str = "cuda:0") -> Visitor:
        visitors.append(Visitor(tmp_path, size, resource))
        return visitors[-1]

    yield arrive_
    for visitor in visitors:
        visitor.dies()


def inside(folder: Path) -> list[int]:
    """Sizes of those who were admitted, in the order of their arrival."""
    return [
        size
        for ticket in json.loads((folder / "tickets.json").read_text())
        if ticket["admitted"]
        for size in ticket["reservations"].values()
    ]


def test_claims_that_fit_together_run_together(arrive: Callable[..., Visitor], tmp_path: Path) -> None:
    for size in (60, 40):
        arrive(size).hears("in")

    assert inside(tmp_path) == [60, 40]


def test_one_that_does_not_fit_waits_until_there_is_room(arrive: Callable[..., Visitor], tmp_path: Path) -> None:
    first = arrive(60)
    second = arrive(50)
    assert inside(tmp_path) == [60]

    first.leaves()

    second.hears("in")
    assert inside(tmp_path) == [50]


def test_nobody_overtakes_for_the_same_device(arrive: Callable[..., Visitor], tmp_path: Path) -> None:
    first, large, small = arrive(60), arrive(100), arrive(10)
    arrive(10, "cuda:1").hears("in")
    assert inside(tmp_path) == [60, 10]

    first.leaves()
    large.hears("in")
    assert inside(tmp_path) == [100, 10]

    large.leaves()
    small.hears("in")


def test_a_claim_beyond_the_device_has_it_alone(arrive: Callable[..., Visitor], tmp_path: Path) -> None:
    first, huge, last = arrive(10), arrive(1000), arrive(1)

    first.leaves()
    huge.hears("in")
    assert inside(tmp_path) == [1000]

    huge.leaves()
    last.hears("in")


def test_the_killed_leave_nothing_behind(arrive: Callable[..., Visitor], tmp_path: Path) -> None:
    runs, waits, last = arrive(100), arrive(100), arrive(100)

    waits.dies()
    runs.dies()

    last.hears("in")
    assert inside(tmp_path) == [100]
    last.leaves()
    assert sorted(path.name for path in tmp_path.glob("ticket-*")) == []


def test_several_claims_are_met_at_once_or_not_at_all(arrive: Callable[..., Visitor], tmp_path: Path) -> None:
    arrive(100, "cuda:1").hears("in")
    both = [Reservation(resource=name, size_bytes=100, capacity_bytes=CARD) for name in ("cuda:0", "cuda:1")]

    place = QueueTicket.take(tmp_path, both)

    assert not place.admitted
    assert inside(tmp_path) == [100]
    place.leave()
    arrive(100).hears("in")


CROWD = """
import json, os, random, signal, sys, time
from pathlib import Path
from pytest_llmmem.workers.memory_queue import Reservation, QueueTicket, _tickets_in

folder, chance = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
for _ in range(12):
    names = chance.sample(["cuda:0", "cuda:1", "host"], chance.randint(1, 3))
    place = QueueTicket.take(folder, [Reservation(resource=name, size_bytes=chance.randint(1, 120), capacity_bytes=100) for name in names])
    place.wait()
    with _tickets_in(folder) as tickets:
        for name in names:
            sizes = [ticket.reservations[name] for ticket in tickets if ticket.admitted and name in ticket.reservations]
            assert len(sizes) == 1 or sum(sizes) <= 100, sizes
    time.sleep(chance.random() / 100)
    place.leave()
"""


def test_a_crowd_with_victims_gets_through_and_never_too_many_at_once(tmp_path: Path) -> None:
    chance = random.Random(5)
    crowd = [subprocess.Popen([sys.executable, "-c", CROWD, str(tmp_path), str(seed)]) for seed in range(6)]
    victims = crowd[:2]
    for victim in victims:
        time.sleep(0.5 + chance.random())
        victim.kill()

    codes = [process.wait() for process in crowd]
    assert codes[2:] == [0, 0, 0, 0]
    place = QueueTicket.take(tmp_path, [Reservation(resource="host", size_bytes=CARD, capacity_bytes=CARD)])
    assert place.admitted
    assert len(json.loads((tmp_path / "tickets.json").read_text())) == 1
