"""Supervision of one job in a worker, between a test that runs and what is known of it afterwards."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self, assert_never

from pytest_llmmem import probes
from pytest_llmmem.core.decide import Action, Kill, Seen, State, Stop, TakeStack, decide
from pytest_llmmem.core.endings import StopReason, judge_ending
from pytest_llmmem.core.hints import uncertain_notes
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.probes.driver import Driver
from pytest_llmmem.probes.host import Gone
from pytest_llmmem.supervision.accounting import Accounting
from pytest_llmmem.supervision.gpus import Gpus, unseen_vram_notes
from pytest_llmmem.supervision.guard import Guard
from pytest_llmmem.supervision.listener import Listener
from pytest_llmmem.supervision.oom_kills import OomKills
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.process_tree import ProcessTree
from pytest_llmmem.supervision.sampler import Sampler
from pytest_llmmem.supervision.sampling_schedule import SampleKind, SamplingSchedule
from pytest_llmmem.supervision.stack_dumps import StackDumps
from pytest_llmmem.workers.channel import ChannelError
from pytest_llmmem.workers.messages import Boundary, Finished, GpusRead, Message, Payload
from pytest_llmmem.workers.worker import Worker

_TAIL_BYTES: Final = 4096
PENDING_MESSAGES: Final = 100
"""Handled between two samples at most: a worker that sends without end is still sampled."""


@dataclass(slots=True)
class Supervision:
    """One job in a worker, step by step: takes samples and messages, and does what was decided."""

    worker: Worker
    plan: JobPlan
    listener: Listener
    driver: Driver
    memory: probes.Memory | Gone
    clock: Callable[[], float] = time.monotonic
    finished: bool = False
    notes: list[str] = field(default_factory=list)
    is_over: bool = False
    """Whether the job is done or the worker is gone."""
    state: State = field(init=False)
    sampler: Sampler = field(init=False)
    _due_s: float = 0.0
    """Time at which the next sample is due."""
    _foreign_bytes: str = ""
    """Why bytes on the worker's channel are no message; empty when all were."""
    accounting: Accounting = field(init=False)
    _guard: Guard = field(init=False)
    _processes: ProcessTree = field(init=False)
    _gpus: Gpus = field(init=False)
    dumps: StackDumps = field(init=False)
    _breach_position: str | None = None
    _oom_kills: OomKills = field(init=False)

    @classmethod
    def of(cls, worker: Worker, plan: JobPlan, listener: Listener, driver: Driver) -> Self:
        """Open the memory of a worker, to supervise a job in it."""
        return cls(worker, plan, listener, driver, probes.open_memory(worker.pid, worker.libraries))

    def __post_init__(self) -> None:
        self.state = State(started_s=self.clock(), timeout_s=self.plan.timeout_s)
        self.accounting = Accounting.of(self.plan, self.clock)
        self._guard = Guard(self.plan, self.accounting)
        self._processes = ProcessTree(self.worker)
        self._gpus = Gpus(self.driver, self.worker.pid)
        self.dumps = StackDumps(self.worker)
        schedule = SamplingSchedule(probes.INTERVAL_S, self.state.started_s)
        self.sampler = Sampler(
            self.worker, self.memory, self.plan, self.accounting, self._guard, self._processes, self._gpus, schedule
        )

    def begin(self, job: Any, *, last: bool) -> None:
        """Set the hard limit, and hand over the job: memory from before the limit would not be charged."""
        self._oom_kills = OomKills.now()
        self.notes += self._guard.enforce(self.worker)
        self.worker.run(job, last=last, waits=self._gpus.are_asked)

    @property
    def due_in_s(self) -> float:
        """Time until the next sample."""
        return max(0.0, self._due_s - self.clock())

    def step(self, timeout_s: float) -> None:
        """Handle a message that arrives before the timeout, and take a sample when it is due, even if more messages wait."""
        try:
            if (message := self.worker.poll(timeout_s)) is not None:
                self._handle(message)
            if (now := self.clock()) >= self._due_s and not self.finished:
                kind = self.sampler.schedule.next_sample(now)
                reading = self.sampler.read(kind)
                self._tick(None if self._crosses_boundary() else reading, kind, now)
                self._due_s = self.clock() + self.sampler.schedule.wait_s(now)
        except EOFError:
            self._take_exit()
        except ChannelError as error:
            self._foreign_bytes = str(error)
            self.worker.kill()
            self._take_exit()
        self.is_over = self.is_over or self.finished

    def stop(self, reason: StopReason) -> None:
        """End the job, unless that is on its way."""
        if self.state.stopped is None and not self.is_over:
            self._act(Stop(reason))

    def _crosses_boundary(self) -> bool:
        """Handle the messages that came during a sample; whether it may lie on either side of a boundary."""
        crosses = False
        for _ in range(PENDING_MESSAGES):
            if self.finished or (message := self.worker.poll(0)) is None:
                break
            crosses = crosses or isinstance(message, Boundary)
            self._handle(message)
        return crosses

    def _handle(self, message: Message) -> None:
        match message:
            case Boundary():
                self.memory.learn(message.reading)
                self._gpus.sample(self.accounting, waits=True)
                answers = self.accounting.cross(message, self.worker.tree_with(message.reading))
                for answer in [GpusRead(), *answers] if self._gpus.are_asked else answers:
                    self.worker.reply(answer)
            case Payload(what):
                self.listener.received(what)
            case Finished():
                self.finished = True
            case never:
                assert_never(never)

    def _tick(self, reading: Reading | None, kind: SampleKind, now: float) -> None:
        """Take a sample in, and do what is decided; ``None`` where there is none that counts."""
        seen: Seen | None = None
        if reading is None or self.accounting.whole is None:
            seen = Seen(budgets=self._guard.budgets())
        elif self.state.stopped is not None:
            self.accounting.meter.sample(reading)
            self.accounting.draw(reading)
            seen = Seen()
        elif kind == "tree" or reading != self.sampler.last_reading:
            seen = self.sampler.take_in(reading, kind, self.state, now)
            if kind == "tree":
                self.listener.progress(self.worker.pid, now - self.state.started_s, reading, self._guard.growth_bytes)
        if seen is not None and (action := decide(self.state, seen, self.clock())):
            self._act(action)

    def _act(self, action: Action) -> None:
        match action:
            case Stop(reason):
                self.sampler.schedule.room(None, 0, self.clock())
                if reason == "timed_out":
                    self.dumps.take_last()
                self.state = replace(self.state, stopped=reason, kill_at_s=self.clock() + self.worker.request_exit())
            case TakeStack("breach"):
                self.take_breach_stack(self._guard.breach_sentence())
            case TakeStack():
                self.state = replace(self.state, grown=True)
                self.dumps.take("growth")
            case Kill():
                self.worker.send_kill()
            case never:
                assert_never(never)

    def _take_exit(self) -> None:
        """Wait for the end, and take in the kernel's high-water marks: they include growth after the last sample."""
        self.is_over = True
        self.worker.wait_end()
        if self.worker.exit is not None:
            self.accounting.meter.sample_exit(self.worker.exit)

    def end(self, *, last: bool) -> Measured:
        """Wait until all that the worker held is back, if it does not go on, and judge what was seen."""
        if last and self.finished:
            self.worker.finish(small=self.accounting.is_small)
        if last or not self.finished:
            self.notes += self._gpus.wait_back(self.accounting.vram) + self._gpus.silence_notes(self.plan.budgets)
        return self._result()

    def _result(self) -> Measured:
        ending = judge_ending(
            self.worker.exit,
            finished=self.finished,
            phase=self.accounting.phase,
            stopped=self.state.stopped,
            evidence=self._oom_kills.evidence(self._guard.limiter, self.worker.origin_exit),
            timeout_s=self.plan.timeout_s,
            foreign_bytes=self._foreign_bytes,
        )
        vram = self.accounting.vram.peaks
        if ending.died:
            self.accounting.mark("death", ending.signal or ending.kind)
            self.notes += unseen_vram_notes(vram, self.plan.budgets)
        verdicts = self._guard.verdicts(unfinished=not self.finished)
        return Measured(
            ending=ending,
            peak=self.accounting.peak(sampled=self._processes.had_children),
            phases=self.accounting.phases(),
            verdicts=verdicts,
            seconds=self.clock() - self.state.started_s,
            refusing_limit=self._guard.limiter.name if self._guard.limiter.refuses() else None,
            stack=self.dumps.of_ending(ending, finished=self.finished),
            growth_stack=self.dumps.of_growth(),
            alive=self.dumps.alive(),
            children=self._processes.told(self.accounting.whole),
            output=("", "") if self.finished else self.worker.output_tail(_TAIL_BYTES),
            notes=(*self.notes, *uncertain_notes(verdicts)),
            vram=vram,
            pinned_bytes=self.accounting.pinned_bytes,
            written_bytes=self.accounting.written.bytes,
            timeline=self.accounting.timeline.record() if self.accounting.timeline else None,
            ranks=self._processes.ranks(),
            place=self._breach_position or (None if self.finished else self.sampler.load_position()),
        )

    def take_breach_stack(self, sentence: str) -> None:
        """Note the crossing of a budget on the timeline, and have the stack written."""
        self.state = replace(self.state, breached=True)
        self._breach_position = self.sampler.load_position()
        self.accounting.mark("breach", sentence)
        self.dumps.take("breach")

    def close(self) -> None:
        if not self.finished:
            self.worker.kill()
            self.worker.close()
        self.memory.close()
        self._guard.limiter.close()
