"""The code inside a worker, forked or spawned: it prepares its stack dumps, runs jobs, and measures itself."""

import contextlib
import ctypes
import faulthandler
import functools
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from pytest_llmmem import probes
from pytest_llmmem.core.alive import alive_line
from pytest_llmmem.core.limits import Limit
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.core.stacks import rest_of_stack
from pytest_llmmem.models.loading.alive import objects_alive
from pytest_llmmem.probes import torch_memory
from pytest_llmmem.probes.host import Mappings
from pytest_llmmem.workers.channel import Channel, Endpoint
from pytest_llmmem.workers.copy_on_write import InheritedPages
from pytest_llmmem.workers.messages import (
    Accepted,
    Boundary,
    Finished,
    Opening,
    Payload,
    Ready,
    Run,
    Spent,
    Streams,
)
from pytest_llmmem.workers.stack_signals import FATAL_DUMP, HOLD, LIVE_DUMP, LIVE_REST

RunJob = Callable[[Any, "ParentConnection"], None]
"""Runs one job; what it raises ends the worker."""

_STRAY: Final = b"llmmem: a forked child of this test came back into pytest, and was ended: end it with os._exit()\n"

# a test may replace them, and not put them back
_exit, _getpid, _write = os._exit, os.getpid, os.write


def serve(
    channel: Channel,
    fault_file: int,
    run_job: RunJob,
    *,
    malloc: str,
    mappings: Mappings,
    counts_copies: bool = False,
) -> None:
    """Take jobs from the channel until the last one is done or the parent is gone.

    ``mappings`` are the process's own, or those of the process that it was forked from.
    """
    # one open descriptor for the life of the worker; faulthandler writes to it from signal handlers
    faulthandler.enable(file=fault_file, all_threads=True)
    arm_dumps(fault_file)
    offer_to_oom_killer()
    if malloc == "steady":
        steady_malloc()
    connection = ParentConnection(channel, mappings, counts_copies=counts_copies)
    connection.ready()
    while True:
        try:
            run: Run = channel.receive()
        except (EOFError, OSError):
            return
        connection.waits = run.waits
        run_job(run.job, connection)
        connection.finish()
        if run.last:
            return


@dataclass(slots=True)
class ParentConnection:
    """The worker's side of the channel: windows of the measurement, and messages of the body."""

    channel: Endpoint
    mappings: Mappings
    """Mappings that do not belong to the tests."""
    waits: bool = False
    """Whether the parent is waited for at each boundary."""
    counts_copies: bool = False
    """Whether inherited pages that were written to are counted even where they are few: 2 ms at each boundary."""
    _memory: Any = None
    _inherited: InheritedPages | None = None
    """``None`` until the first boundary: what is copied before belongs to no test."""
    _pid: int = field(default_factory=_getpid)

    def ready(self) -> None:
        self._memory = probes.open_memory(_getpid(), self.mappings.files)
        self._tell(Ready(self._read(), probes.faulted_bytes(), self.mappings.files))

    def switch(self, *, closes: int = 0, opens: tuple[Opening, ...] = ()) -> None:
        """End the innermost windows and begin others. The high-water mark is reset: no window includes another's peak."""
        self._send_boundary(closes, opens, wants_peak=False)

    def open(self, name: str, limit: Limit | None = None, *, keeps: Limit | None = None) -> None:
        """Begin a window within the current one. Raises ``ValueError`` when a limit cannot be worked out."""
        __tracebackhide__ = True
        self.switch(opens=(Opening(name, limit, keeps),))
        if limit is not None or keeps is not None:
            answer: Accepted = self.channel.receive()
            if answer.complaint:
                raise ValueError(answer.complaint)

    def close(self) -> Spent:
        """End the innermost window and wait for what it used."""
        self._send_boundary(1, (), wants_peak=True)
        spent: Spent = self.channel.receive()
        return spent

    def send(self, what: Any) -> None:
        """Pass something on to the body's owner."""
        self._tell(Payload(what))

    def show_output(self) -> None:
        """Pass on descriptors of the files that standard output and error go to, so that they outlive this process."""
        self.channel.send(Streams(2), (1, 2))

    def finish(self) -> None:
        self._tell(Finished())

    def _tell(self, message: Any) -> None:
        """Send, unless this is a child that the body has forked and that has come back out of it."""
        if _getpid() != self._pid:
            _write(2, _STRAY)
            _exit(1)
        self.channel.send(message)

    def _send_boundary(self, closes: int, opens: tuple[Opening, ...], *, wants_peak: bool) -> None:
        reading = self._read()
        if self._inherited is None:
            self._inherited = InheritedPages(self.mappings, reading, counts_all=self.counts_copies)
        copied = self._inherited.copied(reading)
        probes.reset_mark()
        written = probes.written_bytes()
        vram, pinned = torch_memory.read(), torch_memory.read_pinned()
        self._tell(Boundary(reading, closes, opens, copied, written, wants_peak, vram, pinned))
        if self.waits:
            self.channel.receive()

    def _read(self) -> Reading:
        reading: Reading | None = self._memory.read_pages()
        assert reading is not None, "a running process can read itself"
        return reading


def arm_dumps(fault_file: int) -> None:
    """Let two real-time signals write Python stacks, even while one long system call runs or the GIL is held.

    The fatal one writes all of them and kills, by chaining to the default action: its number as exit status is
    unmistakably ours. A handler runs on the main thread only when its system call returns: a ``read()`` of a whole shard
    never would in time. So the main thread blocks it and a thread that does nothing but wait is there to receive it.

    The live one runs on the main thread and writes that stack alone. Walking the stacks of threads that start and end
    meanwhile reads freed memory, and the test is to go on. Where that stack is deeper than faulthandler writes, the handler
    of a third signal writes its outer end, and what torch's objects hold: it is in Python, and runs when the interpreter
    comes to it.
    """
    if sys.platform == "win32" or not hasattr(signal, "SIGRTMIN"):
        return  # Windows has events instead: workers/windows_dumps.py
    faulthandler.register(LIVE_DUMP, file=fault_file, all_threads=False, chain=False)
    signal.siginterrupt(LIVE_DUMP, False)
    signal.signal(LIVE_REST, functools.partial(_at_crossing, fault_file))
    signal.siginterrupt(LIVE_REST, False)
    faulthandler.register(FATAL_DUMP, file=fault_file, all_threads=True, chain=True)
    libc = ctypes.CDLL(None)
    libc.signal(HOLD, ctypes.cast(libc.pause, ctypes.c_void_p))
    helper = _Helper()
    helper.start()
    # Python 3.12 warns of a fork with several threads; ours must not be the reason
    os.register_at_fork(before=helper.stop, after_in_parent=helper.start)


def _at_crossing(fault_file: int, _number: int, frame: FrameType | None) -> None:
    """Write the outer end of the stack, and what is alive."""
    os.write(fault_file, rest_of_stack(frame).encode(errors="backslashreplace"))
    # objects of all kinds are inspected: side effects and errors of one of them must not reach the test
    with contextlib.suppress(Exception):
        os.write(fault_file, alive_line(objects_alive()).encode())


class _Helper:
    """A thread of C's own, without a Python frame, that waits for signals."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._pid = _getpid()
        self._thread = ctypes.c_ulong()
        # a semaphore at zero, never posted; sem_wait goes on after a handler (SA_RESTART), pause() would return
        self._never = ctypes.create_string_buffer(64)

    def start(self) -> None:
        if _getpid() != self._pid:
            return
        if sys.platform == "win32":
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {FATAL_DUMP})
        wait = ctypes.cast(self._libc.sem_wait, ctypes.c_void_p)
        signal.pthread_sigmask(signal.SIG_BLOCK, {HOLD, LIVE_DUMP})
        self._libc.pthread_create(ctypes.byref(self._thread), None, wait, self._never)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {HOLD, LIVE_DUMP})
        signal.pthread_sigmask(signal.SIG_BLOCK, {FATAL_DUMP})

    def stop(self) -> None:
        if _getpid() == self._pid:
            self._libc.pthread_cancel(self._thread)
            self._libc.pthread_join(self._thread, None)


def offer_to_oom_killer() -> None:
    """Ask the kernel to choose this process first when memory runs out: not the session that judges it."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
        file.write("500")


def steady_malloc() -> None:
    """Fix glibc's mmap threshold at 128 KiB, its initial value, which otherwise adapts and makes peaks random.

    mallopt(3), ``M_MMAP_THRESHOLD`` = -3. Elsewhere than on glibc nothing happens.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-3, 128 * 1024)
