"""The parent's side of one worker, whatever started it."""

import contextlib
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from pytest_llmmem.core.endings import Exit
from pytest_llmmem.core.readings import NOTHING, Reading, Tree
from pytest_llmmem.core.stacks import has_both_ends
from pytest_llmmem.probes import shared_once
from pytest_llmmem.probes.host import Spans
from pytest_llmmem.workers.channel import Channel, ChannelError, readable
from pytest_llmmem.workers.messages import Message, Ready, Run, Streams
from pytest_llmmem.workers.output_files import take_tails
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.stack_signals import FATAL_DUMP, HOLD, LIVE_DUMP, LIVE_REST, signal_main_thread
from pytest_llmmem.workers.worker_source import NoWorkerError

_DUMP_GRACE_S: Final = 0.25
_EXIT_GRACE_S: Final = 10.0


def wait_for_any(workers: "Sequence[Worker]", timeout_s: float) -> None:
    """Wait up to ``timeout_s`` seconds until one of several workers has sent a message or may have ended."""
    if sys.platform == "win32":
        time.sleep(timeout_s)  # select takes no pipes there
        return
    signs = {sign for worker in workers if (sign := worker.end_sign) is not None}
    readable((*(worker.channel.fileno() for worker in workers), *signs), timeout_s)


class Worker(ABC):
    """One worker process and the channel to it."""

    family: Tree = NOTHING
    """Memory of the process that it was forked from, without the worker."""
    origin_exit: Exit | None = None
    """Exit of the process that started it, if that process ended before the worker."""

    def __init__(self, pid: int, channel: Channel, files: SessionFiles) -> None:
        self.pid = pid
        self.channel = channel
        self.files = files
        self.exit: Exit | None = None
        self.is_ending = False
        """Whether a signal that ends it is on its way."""
        self.output: tuple[int, ...] = ()
        self._ready: Ready | None = None
        self.is_open = True

    @abstractmethod
    def reap(self, timeout_s: float) -> Exit | None:
        """Wait up to ``timeout_s`` seconds for its end; ``None`` while it lives."""

    @property
    def origin(self) -> int | None:
        """The process that it was forked from; ``None`` for a spawned worker."""
        return None

    @property
    def end_sign(self) -> int | None:
        """A descriptor that becomes readable when it may have ended; ``None`` where only ``reap`` can tell."""
        return None

    def siblings(self) -> tuple[int, ...]:
        """Others that share pages with it and its origin, and write to their own copies of them as they run."""
        return ()

    def may_leave_unobserved(self) -> bool:
        """Whether it may leave by itself, unobserved, after its last word."""
        return False

    @property
    def can_dump(self) -> bool:
        """Whether it can be made to write its stacks."""
        return hasattr(signal, "SIGRTMIN")

    def wait_ready(self) -> None:
        """Wait for its first word. Raises ``NoWorkerError`` when it died before."""
        try:
            self._ready = self.channel.receive()
        except (EOFError, ChannelError):
            raise NoWorkerError("it ended before it was ready") from None

    @property
    def private_bytes(self) -> int:
        """Its private memory when it became ready."""
        return self._ready.private_bytes if self._ready else 0

    @property
    def libraries(self) -> Spans:
        """The files that it had mapped when it became ready."""
        return self._ready.libraries if self._ready else ()

    def shared_with(self, children: Iterable[int]) -> Tree:
        """Itself, what it has started, and its origin, now; shared pages once."""
        own = (self.pid, *children) if self.origin is None else (self.pid, *children, self.origin)
        return shared_once(own, self.siblings())

    def tree_with(self, reading: Reading) -> Tree:
        """Memory of the worker and its origin, shared pages once, for the worker's ``reading``."""
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
            shmem_bytes=self.family.shmem_bytes + reading.shmem_bytes - since.shmem_bytes,
        )

    def run(self, job: Any, *, last: bool, waits: bool) -> None:
        """Hand over a job. ``poll`` reports a worker that is gone."""
        self.files.begin()
        self.reply(Run(job, last, waits))

    def reply(self, message: Any) -> None:
        with contextlib.suppress(OSError):
            self.channel.send(message)

    def poll(self, timeout_s: float) -> Message | None:
        """The next message; ``None`` after ``timeout_s`` without one.

        Raises ``EOFError`` once there can be no more, and ``ChannelError`` for what is none.
        """
        message = self.channel.pop() or self._wait(timeout_s)
        while isinstance(message, Streams):
            self.output = self.channel.take_descriptors(message.count)
            message = self.channel.pop() or self._wait(0)
        return cast("Message | None", message)

    def _wait(self, timeout_s: float) -> Any | None:
        if sys.platform == "win32":
            if not self.channel.fill(timeout_s) and self.wait_end(0):
                return self._last_message()
            return self.channel.pop()
        ours, sign = self.channel.fileno(), self.end_sign
        woken = readable((ours,) if sign is None else (ours, sign), timeout_s)
        if ours in woken:
            self.channel.fill()
        elif (woken or sign is None) and self.wait_end(0):
            return self._last_message()
        return self.channel.pop()

    def _last_message(self) -> Any:
        """The next message that it sent before its end. Raises ``EOFError`` when all were read.

        What it had started may still hold the other end open.
        """
        with contextlib.suppress(EOFError):
            while self.channel.fill():
                pass
        message = self.channel.pop()
        if message is None:
            raise EOFError("it has ended")
        return message

    @property
    def ready_bytes(self) -> int:
        """Unreclaimable, when it became ready."""
        return self._ready.reading.unreclaimable_bytes if self._ready else 0

    def limit_commit(self, limit_bytes: int | None) -> bool:
        """Have the kernel refuse it and its children memory beyond this, absolute; ``None`` lifts the limit.

        Returns whether that can be done.
        """
        return False

    def dump_stacks(self, *, both_ends: bool = False) -> None:
        """Have the main thread's Python stack written, and go on; it may come late.

        ``both_ends``: wait for its outer end too, which can only be written when Python runs.
        """
        if not self.can_dump:
            return
        before = size = self.files.stacks_size()
        self._request_stack()
        deadline = time.monotonic() + _DUMP_GRACE_S
        while time.monotonic() < deadline:
            time.sleep(0.001)
            size, previous = self.files.stacks_size(), size
            is_whole = not both_ends or has_both_ends(self.files.stacks_text(before))
            if size > before and size == previous and is_whole:
                break

    def request_exit(self) -> float:
        """Have it write its stacks and end; returns the seconds after which it must be killed."""
        self.is_ending = True
        if not self.can_dump:
            return 0.0
        self._request_death()
        return _DUMP_GRACE_S

    def send_kill(self) -> None:
        """Send the signal that nothing survives, and do not wait."""
        self.is_ending = True
        if sys.platform != "win32":
            self._signal(signal.SIGKILL)

    def kill(self) -> None:
        if self.exit is None:
            self.send_kill()
            self.wait_end(_EXIT_GRACE_S)

    def wait_end(self, timeout_s: float = _EXIT_GRACE_S) -> bool:
        """Wait for the process to be gone, and all that it started with it; whether it is."""
        if self.exit is None:
            self.exit = self.reap(timeout_s)
        return self.exit is not None

    def finish(self, *, small: bool) -> None:
        """After its last word: wait for its end, or, when it holds little and leaves nothing, go on at once."""
        if not (small and self.may_leave_unobserved()) and not self.wait_end():
            self.kill()
        self.close()

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.channel.close()
            for descriptor in self.output:
                os.close(descriptor)

    def output_tail(self, length: int) -> tuple[str, str]:
        """The end of what it wrote to the files of standard output and error, which are then emptied."""
        return take_tails(self.output, length)

    def _request_stack(self) -> None:
        if self.exit is None:
            with contextlib.suppress(ProcessLookupError):
                signal_main_thread(self.pid, LIVE_DUMP)
                signal_main_thread(self.pid, LIVE_REST)

    def _request_death(self) -> None:
        self._signal(HOLD)
        self._signal(FATAL_DUMP)

    def _signal(self, number: int) -> None:
        if self.exit is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
