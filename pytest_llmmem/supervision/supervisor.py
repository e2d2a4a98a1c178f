"""Measure and guard one job in a worker: the loop between a test that runs and what is known of it afterwards."""

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pytest_llmmem import probes
from pytest_llmmem.core.guard import GuardedBudget, Machine, why_stop
from pytest_llmmem.core.hints import uncertain_notes
from pytest_llmmem.core.load_position import describe_position
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.outcomes import Ending, Evidence, StopReason, judge_ending
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.core.timeline import Timeline
from pytest_llmmem.probes.driver import Driver
from pytest_llmmem.probes.host import Gone
from pytest_llmmem.probes.timer import fine_timer
from pytest_llmmem.supervision.accounting import Accounting
from pytest_llmmem.supervision.gpus import Gpus
from pytest_llmmem.supervision.plan import LoadPlan
from pytest_llmmem.supervision.process_tree import ProcessTree
from pytest_llmmem.supervision.sampling_schedule import SampleKind, SamplingSchedule
from pytest_llmmem.supervision.stack_dumps import StackDumps
from pytest_llmmem.workers.channel import ChannelError
from pytest_llmmem.workers.limits import Limiter, NoLimiter, build_limiter
from pytest_llmmem.workers.messages import Boundary, Finished, GpusRead, Payload
from pytest_llmmem.workers.worker import Worker

_TAIL_BYTES: Final = 4096
_UNSEEN_VRAM: Final = (
    "torch's account of GPU memory was read when the last phase or block began: "
    "what it had of it between then and the worker's death is unknown"
)
_SMALL_BYTES: Final = 64 * 2**20


class Listener(Protocol):
    """Who is told while the job runs."""

    def received(self, what: Any) -> None:
        """The body said something."""

    def progress(self, pid: int, seconds: float, reading: Reading, growth_bytes: int) -> None:
        """Called at each sample of the tree."""


def measure(worker: Worker, job: Any, *, last: bool, plan: LoadPlan, listener: Listener, driver: Driver) -> Measured:
    """Run one job in a worker, guard it, and judge how it ended."""
    supervision = _Supervision(worker, plan, listener, driver)
    try:
        with fine_timer():
            worker.run(job, last=last, waits=supervision.waits_at_boundaries)
            supervision.watch()
        if last and supervision.finished:
            worker.finish(small=supervision.is_small)
        if last or not supervision.finished:
            supervision.wait_for_gpus()
        return supervision.result()
    except KeyboardInterrupt:
        worker.kill()
        raise
    finally:
        supervision.close()


@dataclass(slots=True)
class _Supervision:
    worker: Worker
    plan: LoadPlan
    listener: Listener
    driver: Driver
    finished: bool = False
    stopped: StopReason | None = None
    breached: bool = False
    foreign_bytes: str = ""
    """What is wrong with what came over the worker's channel."""
    notes: list[str] = field(default_factory=list)
    limiter: Limiter = field(default_factory=NoLimiter)
    _started: float = field(default_factory=time.monotonic)
    _accounting: Accounting = field(init=False)
    waits_at_boundaries: bool = field(init=False)
    """Whether the worker waits there: what a driver says is of the moment in which it is asked."""
    _processes: ProcessTree = field(init=False)
    _gpus: Gpus = field(init=False)
    _dumps: StackDumps = field(init=False)
    _counts_files: bool = field(init=False)
    """Whether a budget does."""
    _shard: str | None = None
    _breach_place: str | None = None
    _kill_at: float = 0.0
    _last_reading: Reading | None = None
    _schedule: SamplingSchedule = field(init=False)
    _memory: probes.Memory | Gone = field(init=False)
    _oom_kills_before: int | None = field(default_factory=probes.oom_kills_on_host)

    def __post_init__(self) -> None:
        self._schedule = SamplingSchedule(probes.INTERVAL_S, self._started)
        timeline = Timeline() if self.plan.draws_timeline else None
        self._accounting = Accounting(
            self.plan.budgets, self.plan.resolve, timeline=timeline, judges_setup=self.plan.judges_setup
        )
        self._processes = ProcessTree(self.worker)
        self._gpus = Gpus(self.driver, self.worker.pid)
        self._dumps = StackDumps(self.worker)
        self._counts_files = any(budget.count == "resident" for budget in self.plan.budgets)
        self.waits_at_boundaries = not self.driver.why_none
        of_memory = [budget for budget in self.plan.budgets if budget.kind == "max_ram"]
        if of_memory:
            enforce = next((budget.enforce for budget in of_memory if budget.enforce != "watch"), "watch")
            strictest_bytes = min(budget.limit_bytes for budget in of_memory)
            self.limiter, complaint = build_limiter(enforce, self.worker, strictest_bytes)
            self.notes += [complaint] if complaint else []

    def watch(self) -> None:
        """Until the job is done or the worker is gone."""
        with contextlib.closing(probes.open_memory(self.worker.pid, self.worker.libraries)) as memory:
            self._memory = memory
            try:
                self._follow()
            except EOFError:
                self._take_exit()
            except ChannelError as error:
                self.foreign_bytes = str(error)
                self.worker.kill()
                self._take_exit()

    def _follow(self) -> None:
        """Take messages as they come, and a look whenever it is time, however many messages there are."""
        due = time.monotonic()
        while not self.finished:
            message = self.worker.poll(max(0.0, due - time.monotonic()))
            if message is not None:
                self._handle(message)
            if (now := time.monotonic()) >= due and not self.finished:
                kind = self._schedule.next_sample(now)
                reading = self._read(kind)
                # of a boundary that came meanwhile nobody knows on which side of the look it lies
                message = self.worker.poll(0)
                self._tick(None if isinstance(message, Boundary) else reading, kind, now)
                if message is not None:
                    self._handle(message)
                due = time.monotonic() + self._schedule.wait_s(now)

    def _read(self, kind: SampleKind) -> Reading | None:
        match kind:
            case "cheap":
                return self._memory.read_growth()
            case "full":
                return self._memory.read()
            case "tree":
                return self._memory.read_pages()

    def _tick(self, reading: Reading | None, kind: SampleKind, now: float) -> None:
        """Take a sample, and see whether the test must be ended."""
        if self.stopped is not None:
            if reading is not None and self._accounting.whole is not None:
                self._accounting.sample(reading)
                self._accounting.draw(reading)
            if time.monotonic() > self._kill_at:
                self.worker.send_kill()
        elif reading is None or self._accounting.whole is None:
            if self._timed_out():
                self._stop("timed_out")
        elif kind == "tree" or reading != self._last_reading:
            self._take_in(reading, kind, now)

    def _take_in(self, reading: Reading, kind: SampleKind, now: float) -> None:
        if kind == "cheap" and not self._schedule.is_judged_now(reading.used_bytes, now):
            self._schedule.changed(now)
            self._last_reading = reading
            self._accounting.sample(reading)
            return
        is_full = kind == "tree" and not self._schedule.near
        if is_full:
            self._sample_tree()
        if reading != self._last_reading or self._processes.seen:
            self._schedule.changed(now)
        self._last_reading = reading
        self._accounting.sample(reading)
        if self.plan.draws_timeline:
            self._load_position()
            self._accounting.draw(reading)
        self._guard(reading, now, is_full=is_full)

    @property
    def is_small(self) -> bool:
        """Whether so little was used that the next test need not wait until it is back."""
        peak = self._accounting.whole.peak if self._accounting.whole else None
        if peak is None or self._accounting.vram.peaks:  # a device's memory is back when the process is gone
            return False
        return peak.peak_bytes + peak.peak_file_bytes < _SMALL_BYTES

    def _take_exit(self) -> None:
        """Wait for the end, and take the kernel's mark: what it grew by after the last sample is in there."""
        self.worker.wait_end()
        exit_ = self.worker.exit
        if exit_ is not None and exit_.peak_resident_bytes is not None:
            self._accounting.meter.sample_mark(exit_.peak_resident_bytes)
        if exit_ is not None and exit_.lifetime is not None:
            self._accounting.meter.sample_lifetime(exit_.lifetime)

    def _handle(self, message: Any) -> None:
        match message:
            case Boundary():
                self._memory.learn(message.reading)
                self._gpus.sample(self._accounting, waits=True)
                answers = self._accounting.cross(message, self.worker.tree_with(message.reading))
                for answer in [GpusRead(), *answers] if self.waits_at_boundaries else answers:
                    self.worker.reply(answer)
            case Payload(what):
                self.listener.received(what)
            case Finished():
                self.finished = True

    def _guard(self, reading: Reading, now: float, *, is_full: bool) -> None:
        assert self._accounting.whole is not None
        machine = None
        elapsed_s = now - self._started
        if is_full:
            growth = self._accounting.whole.peak.peak_bytes
            self.listener.progress(self.worker.pid, elapsed_s, reading, growth)
            if not self._schedule.idle(now):
                machine = Machine(
                    available_bytes=probes.host_memory().available_bytes,
                    reserve_bytes=self.plan.reserve_bytes,
                    growth_bytes=growth,
                )
        guarded = self._guarded()
        if self._counts_files and any(
            budget.must_stop or (budget.breached and not self.breached) for budget in guarded
        ):
            # pages of libraries that have come since the last sample of the tree may have been taken for the test's
            self._accounting.sample(self._memory.read_pages() or reading)
            guarded = self._guarded()
        for window, budget in self._accounting.standing():
            if budget.kind == "max_ram":
                self.limiter.tick(self._accounting.held_bytes(window, budget, reading), reading)
        self._schedule.room(min((budget.ahead_bytes for budget in guarded), default=None), reading.used_bytes, now)
        reason = why_stop(guarded, machine, elapsed_s=elapsed_s, timeout_s=self.plan.timeout_s)
        if reason is not None:
            self._stop(reason)
        elif not self.breached and any(budget.breached for budget in guarded):
            self.breached = True
            self._breach_place = self._load_position()
            verdicts = (self._accounting.seen(window, budget) for window, budget in self._accounting.standing())
            self._accounting.mark("breach", next(verdict.sentence() for verdict in verdicts if not verdict.held))
            self._dumps.take("breach")
        elif self._dumps.growth is None and self._exceeds_baseline():
            self._dumps.take("growth")

    def _exceeds_baseline(self) -> bool:
        allowed_bytes = self.plan.baseline_allows_bytes
        whole = self._accounting.whole if self._accounting.judges_setup else None
        return allowed_bytes is not None and whole is not None and whole.peak.peak_bytes > allowed_bytes

    def _guarded(self) -> tuple[GuardedBudget, ...]:
        """The budgets that can still be broken, beside what is known now."""
        hard = "max_ram" if self.limiter.name == "cgroup" else None
        return tuple(
            GuardedBudget(
                used_bytes=self._accounting.seen(window, budget).certain_bytes,
                limit_bytes=budget.limit_bytes,
                stops_at_limit=budget.on_breach == "stop" or budget.kind == hard,
            )
            for window, budget in self._accounting.standing()
        )

    def _timed_out(self) -> bool:
        return self.plan.timeout_s is not None and time.monotonic() - self._started > self.plan.timeout_s

    def _stop(self, reason: StopReason) -> None:
        self.stopped = reason
        self._schedule.room(None, 0, time.monotonic())
        if reason == "timed_out":
            self._dumps.take_last()
        self._kill_at = time.monotonic() + self.worker.request_exit()

    def _load_position(self) -> str | None:
        """Where in a load the worker is, and a mark on the timeline where a shard begins."""
        place = self.worker.files.place.read()
        if place is None:
            return None
        if place.shard != self._shard:
            self._shard = place.shard
            self._accounting.mark("shard", describe_position(place.shard, "", self.plan.shards))
        return describe_position(place.shard, place.tensor, self.plan.shards)

    def _sample_tree(self) -> None:
        self._accounting.meter.sample_tree(self._processes.sample())
        if any(budget.kind == "max_disk" for budget in self.plan.budgets):
            self._accounting.add_written(self._processes.written_bytes())
        self._gpus.sample(self._accounting)

    def wait_for_gpus(self) -> None:
        """Until the GPU memory of the worker, which has ended, is back for the next test."""
        complaints = (self._gpus.wait_back(self._accounting.vram), self._gpus.complaint(self.plan.budgets))
        self.notes += [complaint for complaint in complaints if complaint]

    def result(self) -> Measured:
        """Judge what was seen."""
        ending = judge_ending(
            self.worker.exit,
            finished=self.finished,
            phase=self._accounting.phase,
            stopped=self.stopped,
            evidence=self._evidence(),
            timeout_s=self.plan.timeout_s,
            foreign_bytes=self.foreign_bytes,
        )
        if ending.died:
            self._accounting.mark("death", ending.signal or ending.kind)
        if ending.kind == "out_of_memory" and self.limiter.oom_kills():
            ending = Ending(kind="over_budget", phase=ending.phase, signal="SIGKILL", note=ending.note)
        vram = self._accounting.vram.peaks
        if ending.died and (vram or any(budget.kind == "max_vram" for budget in self.plan.budgets)):
            self.notes.append(_UNSEEN_VRAM)
        verdicts = self._accounting.verdicts(
            at_least_bytes=self.limiter.killed_at_bytes(), unfinished=not self.finished
        )
        return Measured(
            ending=ending,
            peak=self._accounting.whole.peak if self._accounting.whole else None,
            phases=self._accounting.phases(),
            verdicts=verdicts,
            method="sampled" if self._processes.seen else probes.METHOD,
            seconds=time.monotonic() - self._started,
            stack=self._dumps.of_ending(ending, finished=self.finished),
            growth_stack=self._dumps.of_growth(),
            output=("", "") if self.finished else self.worker.output_tail(_TAIL_BYTES),
            notes=(*self.notes, *uncertain_notes(verdicts)),
            vram=vram,
            pinned_bytes=self._accounting.pinned_bytes,
            written_bytes=self._accounting.written_bytes,
            timeline=self._accounting.timeline.record() if self._accounting.timeline else None,
            ranks=self._processes.ranks(),
            place=self._breach_place or (None if self.finished else self._load_position()),
        )

    def _evidence(self) -> Evidence:
        now = probes.oom_kills_on_host()
        before = self._oom_kills_before
        origin = self.worker.origin_exit
        return Evidence(
            oom_kills_in_group=self.limiter.oom_kills(),
            oom_kills_on_host=now - before if now is not None and before is not None else 0,
            oom_kills_readable=now is not None,
            ended_with=None if origin is None else origin.signal,
        )

    def close(self) -> None:
        if not self.finished:
            self.worker.kill()
            self.worker.close()
        self.limiter.close()
