"""The parent's side of one worker, whatever started it."""

import contextlib
import ctypes
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.reduction import recv_handle
from typing import Any, Final

from pytest_llmmem.core.outcomes import Exit
from pytest_llmmem.core.readings import NOTHING, Reading, Tree
from pytest_llmmem.probes import shared_once
from pytest_llmmem.probes.host import Spans
from pytest_llmmem.workers.traces import Traces
from pytest_llmmem.workers.wire import Channel, Message, Ready, Run, Streams

FATAL_DUMP: Final = getattr(signal, "SIGRTMIN", 0) + 7
"""Dump every Python stack, then die of it (see ``child.arm_dumps``)."""
LIVE_DUMP: Final = getattr(signal, "SIGRTMIN", 0) + 6
"""Dump the main thread's Python stack and go on."""

HOLD: Final = getattr(signal, "SIGRTMIN", 0) + 5
"""Stand still: sent ahead of ``FATAL_DUMP``, which takes a millisecond in which memory grows by 10 MB and more."""

_SELECTABLE: Final = 1024
"""``select`` takes no descriptor above it (``FD_SETSIZE``)."""
_DUMP_GRACE_S: Final = 0.25
_EXIT_GRACE_S: Final = 10.0


def readable(descriptors: Sequence[int], timeout_s: float) -> Sequence[int]:
    """Those from which something can be read, or the end, within so many seconds."""
    if max(descriptors) >= _SELECTABLE:
        return [each for each in wait(descriptors, timeout_s) if isinstance(each, int)]
    # multiprocessing's own builds a selector at each call, and poll(2) counts in milliseconds
    return select.select(descriptors, (), (), timeout_s)[0]


@dataclass(slots=True)
class Worker:
    """One worker process and the channel to it."""

    pid: int
    connection: Channel
    traces: Traces
    reap: Callable[[float], Exit | None]
    """Wait so many seconds for its end; ``None`` while it lives."""
    origin: int | None = None
    """The process that it was forked from; ``None`` for a spawned worker."""
    siblings: Callable[[], tuple[int, ...]] = tuple
    """Others that share pages with it and its origin, and write to their own copies of them as they run."""
    end_sign: int | None = None
    """A descriptor that becomes readable when it may have ended; ``None`` where only ``reap`` can tell."""
    let_go: Callable[[], bool] = lambda: False
    """Whether it may leave by itself, unobserved, after its last word."""
    can_dump: bool = hasattr(signal, "SIGRTMIN")
    family: Tree = NOTHING
    """What its origin holds without it."""
    _ready: Ready | None = None
    exit: Exit | None = None
    doomed: bool = False
    """Whether a signal that ends it is on its way."""
    output: tuple[int, ...] = ()
    _live: bool = True

    def wait_ready(self) -> None:
        """Wait for its first word. Raises ``EOFError`` when it died before."""
        self._ready = self.connection.recv()

    @property
    def private_bytes(self) -> int:
        """What was its own when it became ready."""
        return self._ready.private_bytes if self._ready else 0

    @property
    def libraries(self) -> Spans:
        """The files that it had mapped when it became ready."""
        return self._ready.libraries if self._ready else ()

    def shared_with(self, children: Iterable[int]) -> Tree:
        """Itself, what it has started, and its origin, now; shared pages once."""
        own = (self.pid, *children) if self.origin is None else (self.pid, *children, self.origin)
        return shared_once(own, self.siblings())

    def family_with(self, reading: Reading) -> Tree:
        """Its origin and itself, shared pages once, when it holds what ``reading`` says."""
        assert self._ready is not None, "only a ready worker reads itself"
        since = self._ready.reading
        own = self._ready.private_bytes if self.origin else since.unreclaimable_bytes
        own_resident = self._ready.private_bytes if self.origin else since.resident_bytes
        return Tree(
            unreclaimable_bytes=self.family.unreclaimable_bytes
            + own
            + reading.unreclaimable_bytes
            - since.unreclaimable_bytes,
            resident_bytes=self.family.resident_bytes + own_resident + reading.resident_bytes - since.resident_bytes,
        )

    def run(self, job: Any, *, last: bool, waits: bool) -> None:
        """Hand over a job. A worker that is gone says so through ``poll``."""
        self.traces.begin()
        with contextlib.suppress(OSError):
            self.connection.send(Run(job, last, waits))

    def reply(self, message: Any) -> None:
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def poll(self, timeout_s: float) -> Message | EOFError | None:
        """The next message; ``None`` after ``timeout_s`` without one; an ``EOFError`` once there can be no more."""
        woken = self._wait(timeout_s)
        if self.connection.fileno() in woken:
            return self._receive()
        if (woken or self.end_sign is None) and self.wait_end(0):
            return self._receive() if self.connection.poll() else EOFError("it ended")
        return None

    def _wait(self, timeout_s: float) -> Sequence[int]:
        ours = self.connection.fileno()
        if sys.platform == "win32":
            return (ours,) if self.connection.poll(timeout_s) else ()
        return readable((ours,) if self.end_sign is None else (ours, self.end_sign), timeout_s)

    def _receive(self) -> Message | EOFError | None:
        try:
            message = self.connection.recv()
            if isinstance(message, Streams):
                self.output = tuple(recv_handle(self.connection) for _ in range(message.count))
                return None
        except (EOFError, OSError) as error:
            return EOFError(str(error))
        return message  # type: ignore[no-any-return]  # what a connection yields has no type

    def dump_stacks(self) -> str:
        """Ask for every Python stack without stopping; empty when none came."""
        if not self.can_dump:
            return ""
        before = self.traces.stacks_size()
        self._signal_main_thread(LIVE_DUMP)
        deadline = time.monotonic() + _DUMP_GRACE_S
        size = before
        while time.monotonic() < deadline:
            time.sleep(0.001)
            size, previous = self.traces.stacks_size(), size
            if size > before and size == previous:
                break
        return self.traces.stacks_text(before)

    def ask_to_die(self) -> float:
        """Have it write its stacks and end; after so many seconds it must be killed."""
        self.doomed = True
        if not self.can_dump:
            return 0.0
        self._signal(HOLD)
        self._signal(FATAL_DUMP)
        return _DUMP_GRACE_S

    def strike(self) -> None:
        """Send the signal that nothing survives, and do not wait."""
        self.doomed = True
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))

    def kill(self) -> None:
        if self.exit is None:
            self.strike()
            self.wait_end(_EXIT_GRACE_S)

    def wait_end(self, timeout_s: float = _EXIT_GRACE_S) -> bool:
        """Wait for the process to be gone, and all that it started with it; whether it is."""
        if self.exit is None:
            self.exit = self.reap(timeout_s)
        return self.exit is not None

    def finish(self, *, small: bool) -> None:
        """After its last word: wait for its end, or, when it holds little and leaves nothing, go on at once."""
        if not (small and self.let_go()) and not self.wait_end():
            self.kill()
        self.close()

    def close(self) -> None:
        if self._live:
            self._live = False
            self.connection.close()
            for descriptor in self.output:
                os.close(descriptor)

    def output_tail(self, length: int) -> tuple[str, str]:
        """The end of what it wrote to the files of standard output and error, which are then emptied.

        The next worker writes to the same files, where they were inherited.
        """
        tails = []
        for descriptor in self.output:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                continue
            os.lseek(descriptor, max(0, status.st_size - length), os.SEEK_SET)
            tails.append(os.read(descriptor, length).decode(errors="replace"))
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
        return (tails[0], tails[1]) if len(tails) == 2 else ("", "")

    def _signal_main_thread(self, number: int) -> None:
        """The thread whose number is the process's: sent to the process, the signal may go to any that does not block it."""
        tgkill = None if sys.platform == "win32" else getattr(ctypes.CDLL(None), "tgkill", None)
        if tgkill is None:
            self._signal(number)
        elif self.exit is None:
            tgkill(self.pid, self.pid, number)

    def _signal(self, number: int) -> None:
        if self.exit is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
