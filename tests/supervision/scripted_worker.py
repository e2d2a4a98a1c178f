"""A worker that says, holds and does what a test tells it, on a simulated clock: its channel and its files are real."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_llmmem.core.endings import Exit
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.meter import NONE_COPIED
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.core.vram import DriverReading
from pytest_llmmem.probes.driver import NoDriver
from pytest_llmmem.supervision.accounting import WHOLE
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.supervisor import Supervision
from pytest_llmmem.workers.channel import channel_pair
from pytest_llmmem.workers.messages import Boundary, Opening, Payload, Ready
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.worker import Worker
from tests.supervision.simulated_job import TERMS, reading

NO_PROCESS = 2**22 + 1
"""Linux gives no process a number above 2**22 (``PID_MAX_LIMIT``)."""
LIVE_DUMP = (
    'Stack (most recent call first):\n  File "/repo/test_x.py", line {line} in {function}\n'
    "Outer end behind 0 frames (most recent call first):\n"
)
FATAL_DUMP = 'Current thread 0x1 (most recent call first):\n  File "/repo/test_x.py", line 99 in dying\n'
KILLED = Exit(signal="SIGKILL", signal_number=9)


class ScriptedWorker(Worker):
    """Answers signals with recorded dumps."""

    def __init__(self, folder: Path, pid: int = NO_PROCESS) -> None:
        ours, self.theirs = channel_pair()
        folder.mkdir(exist_ok=True)
        super().__init__(pid, ours, SessionFiles.create(folder))
        self._ready = Ready(reading(0), 0)
        self.ended: Exit | None = None
        """How it has ended; ``None`` while it lives."""
        self.ends_when_asked = True
        self.stacks = [LIVE_DUMP.format(line=12, function="load"), LIVE_DUMP.format(line=20, function="later")]
        """Stacks that it writes when it is asked, one after the other."""
        self.asked: list[str] = []
        """Requests and signals that reached it."""
        self.before_poll: Callable[[], None] = list
        """Called before the channel is read."""

    def say(self, *messages: Any) -> None:
        for message in messages:
            self.theirs.send(message)

    def cross(self, at: Reading, *, closes: int = 0, opens: Iterable[str] = (), limit: str | None = None) -> None:
        """Say that a boundary was crossed."""
        openings = tuple(Opening(name, parse_limit(limit) if limit else None) for name in opens)
        self.say(Boundary(at, closes, openings, NONE_COPIED, wants_peak=bool(closes)))

    def begin(self, at: Reading, *phases: str) -> None:
        self.cross(at, opens=(WHOLE, *phases))

    def heard(self) -> list[Any]:
        """Messages from the parent that it has not read yet."""
        messages = []
        while (message := self.theirs.poll()) is not None:
            messages.append(message)
        return messages

    def poll(self, timeout_s: float) -> Any:
        self.before_poll()
        return super().poll(timeout_s)

    def reap(self, timeout_s: float) -> Exit | None:
        return self.ended

    @property
    def can_dump(self) -> bool:
        return True

    def _write(self, dump: str) -> None:
        with Path(self.files.folder, "stacks").open("a", encoding="utf-8") as file:
            file.write(dump)

    def _request_stack(self) -> None:
        self.asked.append("stack")
        self._write(self.stacks.pop(0))

    def _request_death(self) -> None:
        self.asked.append("exit")
        self._write(FATAL_DUMP)
        if self.ends_when_asked:
            self.ended = KILLED

    def _signal(self, number: int) -> None:
        self.asked.append(f"signal {number}")
        self.ended = KILLED

    def stop(self) -> None:
        self.theirs.close()
        self.close()
        self.files.close()


@dataclass
class RecordedMemory:
    """Readings of a process, as they are recorded: ``now`` until it is changed."""

    now: Reading | None = field(default_factory=lambda: reading(0))
    pages: Reading | None = None
    """The reading with the libraries' pages counted anew, where that differs."""
    learned: list[Reading] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """How it was read."""
    is_open: bool = True

    def read_growth(self) -> Reading | None:
        self.asked.append("growth")
        return self.now

    def read(self) -> Reading | None:
        self.asked.append("all")
        return self.now

    def read_pages(self) -> Reading | None:
        self.asked.append("pages")
        return self.pages or self.now

    def learn(self, reading: Reading) -> None:
        self.learned.append(reading)

    def close(self) -> None:
        self.is_open = False


@dataclass
class Inbox:
    """The owner of the job: keeps what it hears."""

    payloads: list[Any] = field(default_factory=list)
    growth_bytes: list[int] = field(default_factory=list)

    def received(self, what: Any) -> None:
        self.payloads.append(what)

    def progress(self, pid: int, seconds: float, reading: Reading, growth_bytes: int) -> None:
        self.growth_bytes.append(growth_bytes)

    @property
    def has_failed(self) -> bool:
        """Whether a rank said so."""
        return "failed" in self.payloads


@dataclass
class RecordedDriver:
    """A GPU's driver that says what is held: the last number stays."""

    held_bytes: list[int]
    why_none: str = ""
    devices: frozenset[str] = frozenset({"cuda:0"})

    def ask(self, pids: Iterable[int], *, patience_s: float) -> tuple[DriverReading, ...]:
        held = self.held_bytes.pop(0) if len(self.held_bytes) > 1 else self.held_bytes[0]
        return (
            DriverReading(device="cuda:0", used_bytes=held, peak_used_bytes=held, own_bytes=held, peak_own_bytes=held),
        )

    def close(self) -> None: ...


@dataclass
class SupervisedJob:
    """The real supervision of a scripted worker."""

    worker: ScriptedWorker
    plan: JobPlan = field(default_factory=lambda: JobPlan(terms=TERMS))
    driver: Any = field(default_factory=lambda: NoDriver("no GPU"))
    memory: RecordedMemory = field(default_factory=RecordedMemory)
    inbox: Inbox = field(default_factory=Inbox)
    now_s: float = 0.0
    is_begun: bool = True

    def __post_init__(self) -> None:
        self.supervision = Supervision(
            self.worker, self.plan, self.inbox, self.driver, self.memory, clock=lambda: self.now_s
        )
        if self.is_begun:
            self.supervision.begin("the job", last=True)

    def step(self, now: Reading | None = None, *, after_s: float = 0.06) -> None:
        """A step of the loop, after so many seconds: by default the tree is due, too. ``now`` is what the worker holds then."""
        self.now_s += after_s
        if now is not None:
            self.memory.now = now
        self.supervision.step(0)

    def say(self, *payloads: Any) -> None:
        self.worker.say(*map(Payload, payloads))
