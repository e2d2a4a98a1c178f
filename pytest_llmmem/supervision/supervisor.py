"""Measure and guard one job in a worker: the loop between a test that runs and what is known of it afterwards."""

import time
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pytest_llmmem import probes
from pytest_llmmem.core.hints import uncertain_notes
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.outcomes import Evidence, StopReason, judge_ending
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.probes.driver import Driver
from pytest_llmmem.probes.timer import fine_timer
from pytest_llmmem.supervision.accounting import Accounting
from pytest_llmmem.supervision.decide import Action, Kill, Seen, State, Stop, TakeStack, decide
from pytest_llmmem.supervision.gpus import Gpus
from pytest_llmmem.supervision.guard import Guard
from pytest_llmmem.supervision.listener import Listener
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.process_tree import ProcessTree
from pytest_llmmem.supervision.sampler import Sampler
from pytest_llmmem.supervision.sampling_schedule import SampleKind, SamplingSchedule
from pytest_llmmem.supervision.stack_dumps import StackDumps
from pytest_llmmem.supervision.timeline_recorder import TimelineRecorder
from pytest_llmmem.workers.channel import ChannelError
from pytest_llmmem.workers.messages import Boundary, Finished, GpusRead, Payload
from pytest_llmmem.workers.worker import Worker

_TAIL_BYTES: Final = 4096
_UNSEEN_VRAM: Final = (
    "torch's account of GPU memory was read when the last phase or block began: "
    "what it had of it between then and the worker's death is unknown"
)
_PENDING_MESSAGES: Final = 100
"""Handled between two samples at most: a worker that sends without end is still sampled."""


def measure(worker: Worker, job: Any, *, last: bool, plan: JobPlan, listener: Listener, driver: Driver) -> Measured:
    """Run one job in a worker, guard it, and judge how it ended."""
    supervision = Supervision(worker, plan, listener, driver)
    try:
        with fine_timer():
            supervision.begin(job, last=last)
            while not supervision.is_over:
                supervision.step(supervision.due_in_s)
        return supervision.end(last=last)
    except KeyboardInterrupt:
        worker.kill()
        raise
    finally:
        supervision.close()


@dataclass(slots=True)
class Supervision:
    """One job in a worker, step by step: takes samples and messages, and does what was decided."""

    worker: Worker
    plan: JobPlan
    listener: Listener
    driver: Driver
    finished: bool = False
    notes: list[str] = field(default_factory=list)
    waits_at_boundaries: bool = field(init=False)
    """Whether the worker waits there: a driver's answer is about the moment in which it is asked."""
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
    _dumps: StackDumps = field(init=False)
    _breach_position: str | None = None
    _oom_kills_before: int | None = field(default_factory=probes.oom_kills_on_host)

    def __post_init__(self) -> None:
        started_s = time.monotonic()
        self.state = State(started_s=started_s, timeout_s=self.plan.timeout_s)
        timeline = TimelineRecorder() if self.plan.draws_timeline else None
        self.accounting = Accounting(
            self.plan.budgets,
            self.plan.terms,
            timeline=timeline,
            judges_setup=self.plan.judges_setup,
            rank=self.plan.rank,
        )
        self._guard = Guard(self.plan, self.accounting)
        self._processes = ProcessTree(self.worker)
        self._gpus = Gpus(self.driver, self.worker.pid)
        self._dumps = StackDumps(self.worker)
        schedule = SamplingSchedule(probes.INTERVAL_S, self.state.started_s)
        memory = probes.open_memory(self.worker.pid, self.worker.libraries)
        self.sampler = Sampler(self.worker, memory, self._guard, self._processes, self._gpus, schedule)
        self.waits_at_boundaries = not self.driver.why_none

    def begin(self, job: Any, *, last: bool) -> None:
        """Set the hard limit, and hand over the job: memory from before the limit would not be charged."""
        complaint = self._guard.enforce(self.worker)
        self.notes += [complaint] if complaint else []
        self.worker.run(job, last=last, waits=self.waits_at_boundaries)

    @property
    def due_in_s(self) -> float:
        """Time until the next sample."""
        return max(0.0, self._due_s - time.monotonic())

    def step(self, timeout_s: float) -> None:
        """Handle a message that arrives before the timeout, and take a sample when it is due, even if more messages wait."""
        try:
            message = self.worker.poll(timeout_s)
            if message is not None:
                self._handle(message)
            if (now := time.monotonic()) >= self._due_s and not self.finished:
                kind = self.sampler.schedule.next_sample(now)
                reading = self.sampler.read(kind)
                self._tick(None if self._crosses_boundary() else reading, kind, now)
                self._due_s = time.monotonic() + self.sampler.schedule.wait_s(now)
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
        for _ in range(_PENDING_MESSAGES):
            message = None if self.finished else self.worker.poll(0)
            if message is None:
                break
            crosses = crosses or isinstance(message, Boundary)
            self._handle(message)
        return crosses

    def _handle(self, message: Any) -> None:
        match message:
            case Boundary():
                self.sampler.memory.learn(message.reading)
                self._gpus.sample(self.accounting, waits=True)
                answers = self.accounting.cross(message, self.worker.tree_with(message.reading))
                for answer in [GpusRead(), *answers] if self.waits_at_boundaries else answers:
                    self.worker.reply(answer)
            case Payload(what):
                self.listener.received(what)
            case Finished():
                self.finished = True

    def _tick(self, reading: Reading | None, kind: SampleKind, now: float) -> None:
        """Take a sample in, and do what is decided; ``None`` where there is none that counts."""
        seen: Seen | None
        if reading is None or self.accounting.whole is None:
            seen = Seen(budgets=self._guard.budgets())
        elif self.state.stopped is not None:
            self.accounting.sample(reading)
            self.accounting.draw(reading)
            seen = Seen()
        elif kind == "tree" or reading != self.sampler.last_reading:
            seen = self.sampler.take_in(reading, kind, self.state, now)
            if kind == "tree":
                elapsed_s = now - self.state.started_s
                self.listener.progress(self.worker.pid, elapsed_s, reading, self._guard.growth_bytes)
        else:
            return
        if seen is not None and (action := decide(self.state, seen, time.monotonic())):
            self._act(action)

    def _act(self, action: Action) -> None:
        match action:
            case Stop(reason):
                self.sampler.schedule.room(None, 0, time.monotonic())
                if reason == "timed_out":
                    self._dumps.take_last()
                kill_at_s = time.monotonic() + self.worker.request_exit()
                self.state = replace(self.state, stopped=reason, kill_at_s=kill_at_s)
            case TakeStack("breach"):
                self.take_breach_stack(self._guard.breach_sentence())
            case TakeStack("growth"):
                self.state = replace(self.state, grown=True)
                self._dumps.take("growth")
            case Kill():
                self.worker.send_kill()

    def _take_exit(self) -> None:
        """Wait for the end, and read the kernel's high-water mark: it includes growth after the last sample."""
        self.is_over = True
        self.worker.wait_end()
        exit_ = self.worker.exit
        if exit_ is not None and exit_.peak_resident_bytes is not None:
            self.accounting.meter.sample_mark(exit_.peak_resident_bytes)
        if exit_ is not None and exit_.lifetime is not None:
            self.accounting.meter.sample_lifetime(exit_.lifetime)

    def end(self, *, last: bool) -> Measured:
        """Wait until all that the worker held is back, if it does not go on, and judge what was seen."""
        if last and self.finished:
            self.worker.finish(small=self.accounting.is_small)
        if last or not self.finished:
            complaints = (self._gpus.wait_back(self.accounting.vram), self._gpus.complaint(self.plan.budgets))
            self.notes += [complaint for complaint in complaints if complaint]
        return self._result()

    def _result(self) -> Measured:
        ending = judge_ending(
            self.worker.exit,
            finished=self.finished,
            phase=self.accounting.phase,
            stopped=self.state.stopped,
            evidence=self._evidence(),
            timeout_s=self.plan.timeout_s,
            foreign_bytes=self._foreign_bytes,
        )
        if ending.died:
            self.accounting.mark("death", ending.signal or ending.kind)
        vram = self.accounting.vram.peaks
        if ending.died and (vram or any(budget.kind == "max_vram" for budget in self.plan.budgets)):
            self.notes.append(_UNSEEN_VRAM)
        verdicts = self.accounting.verdicts(
            at_least_bytes=self._guard.limiter.killed_at_bytes(), unfinished=not self.finished
        )
        return Measured(
            ending=ending,
            peak=self.accounting.peak(sampled=self._processes.seen),
            phases=self.accounting.phases(),
            verdicts=verdicts,
            seconds=time.monotonic() - self.state.started_s,
            stack=self._dumps.of_ending(ending, finished=self.finished),
            growth_stack=self._dumps.of_growth(),
            alive=self._dumps.alive(),
            children=self._processes.told(self.accounting.whole),
            output=("", "") if self.finished else self.worker.output_tail(_TAIL_BYTES),
            notes=(*self.notes, *uncertain_notes(verdicts)),
            vram=vram,
            pinned_bytes=self.accounting.pinned_bytes,
            written_bytes=self.accounting.written_bytes,
            timeline=self.accounting.timeline.record() if self.accounting.timeline else None,
            ranks=self._processes.ranks(),
            place=self._breach_position or (None if self.finished else self.sampler.load_position()),
        )

    def _evidence(self) -> Evidence:
        now = probes.oom_kills_on_host()
        before = self._oom_kills_before
        origin = self.worker.origin_exit
        return Evidence(
            oom_kills_in_group=self._guard.limiter.oom_kills(),
            oom_kills_on_host=now - before if now is not None and before is not None else 0,
            oom_kills_readable=now is not None,
            ended_with=None if origin is None else origin.signal,
        )

    def take_breach_stack(self, sentence: str) -> None:
        """Note the crossing of a budget on the timeline, and have the stack written."""
        self.state = replace(self.state, breached=True)
        self._breach_position = self.sampler.load_position()
        self.accounting.mark("breach", sentence)
        self._dumps.take("breach")

    def close(self) -> None:
        if not self.finished:
            self.worker.kill()
            self.worker.close()
        self.sampler.memory.close()
        self._guard.limiter.close()
