"""The process that starts workers on request, and reports the exit of each (Linux)."""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "linux", "the platform's switch is plugin.run.pool"

import selectors
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from pytest_llmmem.core.endings import Exit
from pytest_llmmem.workers.channel import Channel
from pytest_llmmem.workers.children import ChildEvents, adopt_orphans, end_descendants

StartWorker = Callable[[int], int]
"""Starts a process that serves the channel with this descriptor; returns its pid."""


@dataclass(frozen=True, slots=True)
class Start:
    """Parent to server: start a worker; the descriptor of its channel comes with it."""


@dataclass(frozen=True, slots=True)
class Release:
    """Parent to server: this worker has left nothing behind, and others may run when it ends."""

    pid: int


@dataclass(frozen=True, slots=True)
class Preloaded:
    """Server to parent: workers can be started, unless it has opened a GPU, whose context survives no fork."""

    pid: int
    """The server's."""
    gpu_file: str | None


@dataclass(frozen=True, slots=True)
class Started:
    """Server to parent."""

    pid: int


@dataclass(frozen=True, slots=True)
class NotStarted:
    """Server to parent: the system refused another process."""

    why: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Server to parent: a worker is gone, and all that it had left behind."""

    pid: int
    exit: Exit


def serve(control: Channel, events: ChildEvents, start: StartWorker, *, marks: Literal["own", "inherited"]) -> None:
    """Serve requests until the parent is gone.

    ``marks`` is whose memory the kernel's high-water mark of a worker begins with: after an exec it is that of the
    process that has started it, and says nothing.
    """
    adopt_orphans()
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(events, selectors.EVENT_READ)
    workers: set[int] = set()
    released: set[int] = set()
    while True:
        selector.select()
        for pid, exit_ in events.ended():
            if pid in workers:
                workers.discard(pid)
                if pid not in released:
                    end_descendants(spared=workers)
                released.discard(pid)
                control.send(Ended(pid, exit_ if marks == "own" else replace(exit_, peak_resident_bytes=None)))
        while (message := control.poll()) is not None:
            match message:
                case Release(pid):
                    released.add(pid)
                case Start():
                    try:
                        pid = start(*control.take_descriptors(1))
                    except OSError as error:
                        control.send(NotStarted(str(error)))
                    else:
                        workers.add(pid)
                        control.send(Started(pid))
