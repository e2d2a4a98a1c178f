"""Measure and guard one job in a worker: the loop between a test that runs and what is known of it afterwards."""

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pytest_llmmem import probes
from pytest_llmmem.core.guard import Guarded, Machine, why_stop
from pytest_llmmem.core.hints import uncertain_notes
from pytest_llmmem.core.load_position import describe_place
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.outcomes import Ending, Evidence, StopReason, judge_ending
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.core.timeline import Timeline
from pytest_llmmem.probes.driver import Driver
from pytest_llmmem.probes.host import Gone
from pytest_llmmem.supervision.accounting import Ledger
from pytest_llmmem.supervision.gpus import Cards
from pytest_llmmem.supervision.plan import LoadPlan
from pytest_llmmem.supervision.process_tree import Family
from pytest_llmmem.supervision.sampling_schedule import Look, Pace
from pytest_llmmem.supervision.stack_dumps import Dumps
from pytest_llmmem.workers.channel import ChannelError
from pytest_llmmem.workers.limits import Fence, NoFence, build_fence
from pytest_llmmem.workers.messages import Boundary, Finished, Looked, Said
from pytest_llmmem.workers.worker import Worker

_TAIL_BYTES: Final = 4096
_UNSEEN_VRAM: Final = (
    "torch's account of GPU memory was read when the last phase or block began: "
    "what it had of it between then and the worker's death is unknown"
)
_SMALL_BYTES: Final = 64 * 2**20


class Listener(Protocol):
    """Who is told while the job runs."""

    def said(self, what: Any) -> None:
        """The body said something."""

    def progress(self, pid: int, seconds: float, reading: Reading, growth_bytes: int) -> None:
        """Called at each survey."""


def measure(worker: Worker, job: Any, *, last: bool, plan: LoadPlan, listener: Listener, driver: Driver) -> Measured:
    """Run one job in a worker, guard it, and judge how it ended."""
    supervision = _Supervision(worker, plan, listener, driver)
    try:
        worker.run(job, last=last, waits=supervision.looks_at_boundaries)
        supervision.watch()
        if last and supervision.finished:
            worker.finish(small=supervision.is_small)
        if last or not supervision.finished:
            supervision.wait_for_cards()
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
    intrusion: str = ""
    """What is wrong with what came over the worker's channel."""
    notes: list[str] = field(default_factory=list)
    fence: Fence = field(default_factory=NoFence)
    _started: float = field(default_factory=time.monotonic)
    _ledger: Ledger = field(init=False)
    looks_at_boundaries: bool = field(init=False)
    """Whether the worker waits there: what a driver says is of the moment in which it is asked."""
    _family: Family = field(init=False)
    _cards: Cards = field(init=False)
    _dumps: Dumps = field(init=False)
    _counts_files: bool = field(init=False)
    """Whether a budget does."""
    _shard: str | None = None
    _breach_place: str | None = None
    _strike_at: float = 0.0
    _last_reading: Reading | None = None
    _pace: Pace = field(init=False)
    _memory: probes.Memory | Gone = field(init=False)
    _oom_kills_before: int | None = field(default_factory=probes.oom_kills_on_host)

    def __post_init__(self) -> None:
        self._pace = Pace(probes.INTERVAL_S, self._started)
        timeline = Timeline() if self.plan.draws_timeline else None
        self._ledger = Ledger(
            self.plan.budgets, self.plan.resolve, timeline=timeline, judges_setup=self.plan.judges_setup
        )
        self._family = Family(self.worker)
        self._cards = Cards(self.driver, self.worker.pid)
        self._dumps = Dumps(self.worker)
        self._counts_files = any(budget.count == "resident" for budget in self.plan.budgets)
        self.looks_at_boundaries = not self.driver.why_none
        of_memory = [budget for budget in self.plan.budgets if budget.kind == "max_ram"]
        if of_memory:
            enforce = next((budget.enforce for budget in of_memory if budget.enforce != "watch"), "watch")
            strictest_bytes = min(budget.limit_bytes for budget in of_memory)
            self.fence, complaint = build_fence(enforce, self.worker.pid, strictest_bytes)
            self.notes += [complaint] if complaint else []

    def watch(self) -> None:
        """Until the job is done or the worker is gone."""
        with contextlib.closing(probes.open_memory(self.worker.pid, self.worker.libraries)) as memory:
            self._memory = memory
            try:
                self._follow()
            except EOFError:
                self._bury()
            except ChannelError as error:
                self.intrusion = str(error)
                self.worker.kill()
                self._bury()

    def _follow(self) -> None:
        """Take messages as they come, and a look whenever it is time, however many messages there are."""
        due = time.monotonic()
        while not self.finished:
            message = self.worker.poll(max(0.0, due - time.monotonic()))
            if message is not None:
                self._hear(message)
            if (now := time.monotonic()) >= due and not self.finished:
                look = self._pace.look(now)
                reading = self._read(look)
                # of a boundary that came meanwhile nobody knows on which side of the look it lies
                message = self.worker.poll(0)
                self._tick(None if isinstance(message, Boundary) else reading, look, now)
                if message is not None:
                    self._hear(message)
                due = time.monotonic() + self._pace.wait_s(now)

    def _read(self, look: Look) -> Reading | None:
        match look:
            case "glance":
                return self._memory.glance()
            case "reading":
                return self._memory.read()
            case "survey":
                return self._memory.read_pages()

    def _tick(self, reading: Reading | None, look: Look, now: float) -> None:
        """Take a sample, and see whether the test must be ended."""
        if self.stopped is not None:
            if reading is not None and self._ledger.whole is not None:
                self._ledger.sample(reading)
                self._ledger.draw(reading)
            if time.monotonic() > self._strike_at:
                self.worker.strike()
        elif reading is None or self._ledger.whole is None:
            if self._timed_out():
                self._stop("timed_out")
        elif look == "survey" or reading != self._last_reading:
            self._take_in(reading, look, now)

    def _take_in(self, reading: Reading, look: Look, now: float) -> None:
        if look == "glance" and not self._pace.is_judged_now(reading.used_bytes, now):
            self._pace.changed(now)
            self._last_reading = reading
            self._ledger.sample(reading)
            return
        surveys = look == "survey" and not self._pace.near
        if surveys:
            self._look_around()
        if reading != self._last_reading or self._family.seen:
            self._pace.changed(now)
        self._last_reading = reading
        self._ledger.sample(reading)
        if self.plan.draws_timeline:
            self._where()
            self._ledger.draw(reading)
        self._guard(reading, now, surveys=surveys)

    @property
    def is_small(self) -> bool:
        """Whether so little was used that the next test need not wait until it is back."""
        peak = self._ledger.whole.peak if self._ledger.whole else None
        if peak is None or self._ledger.vram.peaks:  # a device's memory is back when the process is gone
            return False
        return peak.peak_bytes + peak.peak_file_bytes < _SMALL_BYTES

    def _bury(self) -> None:
        """Wait for the end, and take the kernel's mark: what it grew by after the last sample is in there."""
        self.worker.wait_end()
        exit_ = self.worker.exit
        if exit_ is not None and exit_.peak_resident_bytes is not None:
            self._ledger.meter.sample_mark(exit_.peak_resident_bytes)

    def _hear(self, message: Any) -> None:
        match message:
            case Boundary():
                self._memory.learn(message.reading)
                self._cards.look(self._ledger, waits=True)
                answers = self._ledger.cross(message, self.worker.family_with(message.reading))
                for answer in [Looked(), *answers] if self.looks_at_boundaries else answers:
                    self.worker.reply(answer)
            case Said(what):
                self.listener.said(what)
            case Finished():
                self.finished = True

    def _guard(self, reading: Reading, now: float, *, surveys: bool) -> None:
        assert self._ledger.whole is not None
        machine = None
        elapsed_s = now - self._started
        if surveys:
            growth = self._ledger.whole.peak.peak_bytes
            self.listener.progress(self.worker.pid, elapsed_s, reading, growth)
            if not self._pace.idle(now):
                machine = Machine(
                    available_bytes=probes.host_memory().available_bytes,
                    reserve_bytes=self.plan.reserve_bytes,
                    growth_bytes=growth,
                )
        guarded = self._guarded()
        if self._counts_files and any(
            budget.must_stop or (budget.breached and not self.breached) for budget in guarded
        ):
            # pages of libraries that have come since the last survey may have been taken for the test's
            self._ledger.sample(self._memory.read_pages() or reading)
            guarded = self._guarded()
        for window, budget in self._ledger.standing():
            if budget.kind == "max_ram":
                self.fence.tick(self._ledger.held_bytes(window, budget, reading), reading)
        self._pace.room(min((budget.ahead_bytes for budget in guarded), default=None), reading.used_bytes, now)
        reason = why_stop(guarded, machine, elapsed_s=elapsed_s, timeout_s=self.plan.timeout_s)
        if reason is not None:
            self._stop(reason)
        elif not self.breached and any(budget.breached for budget in guarded):
            self.breached = True
            self._breach_place = self._where()
            verdicts = (self._ledger.seen(window, budget) for window, budget in self._ledger.standing())
            self._ledger.mark("breach", next(verdict.sentence() for verdict in verdicts if not verdict.held))
            self._dumps.take("breach")
        elif self._dumps.growth is None and self._exceeds_baseline():
            self._dumps.take("growth")

    def _exceeds_baseline(self) -> bool:
        allowed_bytes = self.plan.baseline_allows_bytes
        whole = self._ledger.whole if self._ledger.judges_setup else None
        return allowed_bytes is not None and whole is not None and whole.peak.peak_bytes > allowed_bytes

    def _guarded(self) -> tuple[Guarded, ...]:
        """The budgets that can still be broken, beside what is known now."""
        hard = "max_ram" if self.fence.name == "cgroup" else None
        return tuple(
            Guarded(
                used_bytes=self._ledger.seen(window, budget).certain_bytes,
                limit_bytes=budget.limit_bytes,
                stops_at_limit=budget.on_breach == "stop" or budget.kind == hard,
            )
            for window, budget in self._ledger.standing()
        )

    def _timed_out(self) -> bool:
        return self.plan.timeout_s is not None and time.monotonic() - self._started > self.plan.timeout_s

    def _stop(self, reason: StopReason) -> None:
        self.stopped = reason
        self._pace.room(None, 0, time.monotonic())
        if reason == "timed_out":
            self._dumps.take_last()
        self._strike_at = time.monotonic() + self.worker.ask_to_die()

    def _where(self) -> str | None:
        """Where in a load the worker is, and a mark on the timeline where a shard begins."""
        place = self.worker.traces.place.read()
        if place is None:
            return None
        if place.shard != self._shard:
            self._shard = place.shard
            self._ledger.mark("shard", describe_place(place.shard, "", self.plan.shards))
        return describe_place(place.shard, place.tensor, self.plan.shards)

    def _look_around(self) -> None:
        self._ledger.meter.sample_tree(self._family.sample())
        if any(budget.kind == "max_disk" for budget in self.plan.budgets):
            self._ledger.wrote(self._family.written_bytes())
        self._cards.look(self._ledger)

    def wait_for_cards(self) -> None:
        """Until the GPU memory of the worker, which has ended, is back for the next test."""
        complaints = (self._cards.wait_back(self._ledger.vram), self._cards.complaint(self.plan.budgets))
        self.notes += [complaint for complaint in complaints if complaint]

    def result(self) -> Measured:
        """Judge what was seen."""
        ending = judge_ending(
            self.worker.exit,
            finished=self.finished,
            phase=self._ledger.phase,
            stopped=self.stopped,
            evidence=self._evidence(),
            timeout_s=self.plan.timeout_s,
            intrusion=self.intrusion,
        )
        if ending.died:
            self._ledger.mark("death", ending.signal or ending.kind)
        if ending.kind == "out_of_memory" and self.fence.oom_kills():
            ending = Ending(kind="over_budget", phase=ending.phase, signal="SIGKILL", note=ending.note)
        vram = self._ledger.vram.peaks
        if ending.died and (vram or any(budget.kind == "max_vram" for budget in self.plan.budgets)):
            self.notes.append(_UNSEEN_VRAM)
        verdicts = self._ledger.verdicts(at_least_bytes=self.fence.killed_at_bytes(), unfinished=not self.finished)
        return Measured(
            ending=ending,
            peak=self._ledger.whole.peak if self._ledger.whole else None,
            phases=self._ledger.phases(),
            verdicts=verdicts,
            method="sampled" if self._family.seen else probes.METHOD,
            seconds=time.monotonic() - self._started,
            stack=self._dumps.of_ending(ending, finished=self.finished),
            growth_stack=self._dumps.of_growth(),
            output=("", "") if self.finished else self.worker.output_tail(_TAIL_BYTES),
            notes=(*self.notes, *uncertain_notes(verdicts)),
            vram=vram,
            pinned_bytes=self._ledger.pinned_bytes,
            written_bytes=self._ledger.written_bytes,
            timeline=self._ledger.timeline.record() if self._ledger.timeline else None,
            ranks=self._family.ranks(),
            place=self._breach_place or (None if self.finished else self._where()),
        )

    def _evidence(self) -> Evidence:
        now = probes.oom_kills_on_host()
        before = self._oom_kills_before
        origin = self.worker.origin_exit
        return Evidence(
            oom_kills_in_group=self.fence.oom_kills(),
            oom_kills_on_host=now - before if now is not None and before is not None else 0,
            oom_kills_readable=now is not None,
            ended_with=None if origin is None else origin.signal,
        )

    def close(self) -> None:
        if not self.finished:
            self.worker.kill()
            self.worker.close()
        self.fence.close()
