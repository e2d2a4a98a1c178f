"""The samples of one worker: taken when they are due, as closely as they must be, and put into the accounting."""

from dataclasses import dataclass

from pytest_llmmem import probes
from pytest_llmmem.core.decide import Seen, State
from pytest_llmmem.core.load_position import describe_position
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.probes.host import Gone
from pytest_llmmem.supervision.accounting import Accounting
from pytest_llmmem.supervision.gpus import Gpus
from pytest_llmmem.supervision.guard import Guard
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.process_tree import ProcessTree
from pytest_llmmem.supervision.sampling_schedule import SampleKind, SamplingSchedule
from pytest_llmmem.workers.worker import Worker


@dataclass(slots=True)
class Sampler:
    """Reads the worker, its children and its GPUs."""

    worker: Worker
    memory: probes.Memory | Gone
    plan: JobPlan
    accounting: Accounting
    guard: Guard
    processes: ProcessTree
    gpus: Gpus
    schedule: SamplingSchedule
    last_reading: Reading | None = None
    _shard: str | None = None

    def read(self, kind: SampleKind) -> Reading | None:
        """The worker's memory now; ``None`` once it is gone."""
        if kind == "cheap":
            return self.memory.read_growth()
        return self.memory.read() if kind == "full" else self.memory.read_pages()

    def take_in(self, reading: Reading, kind: SampleKind, state: State, now: float) -> Seen | None:
        """Take a sample in; ``None`` for a cheap one far from every limit, which is judged with the next full one."""
        changed, self.last_reading = reading != self.last_reading, reading
        if kind == "cheap" and not self.schedule.is_judged_now(reading.used_bytes, now):
            self.schedule.changed(now)
            self.accounting.meter.sample(reading)
            return None
        samples_tree = kind == "tree" and not self.schedule.near
        if samples_tree:
            self._sample_tree(reading)
        if changed or self.processes.had_children:
            self.schedule.changed(now)
        self.accounting.meter.sample(reading)
        if self.plan.draws_timeline:
            self.load_position()
            self.accounting.draw(reading)
        if self.guard.needs_library_pages(breached=state.breached):
            self.accounting.meter.sample(self.memory.read_pages() or reading)
        self.guard.move_limit(reading)
        seen = self.guard.seen(at_machine=samples_tree and not self.schedule.idle(now))
        ahead_bytes = min((budget.ahead_bytes for budget in seen.budgets), default=None)
        self.schedule.room(ahead_bytes, reading.used_bytes, now)
        return seen

    def _sample_tree(self, reading: Reading) -> None:
        self.accounting.meter.sample_tree(self.processes.sample(reading))
        if any(budget.kind == "max_disk" for budget in self.plan.budgets):
            self.accounting.written.add(self.processes.written_bytes())
        self.gpus.sample(self.accounting)

    def load_position(self) -> str | None:
        """Position of the worker in a load. Adds a mark to the timeline at the beginning of each shard."""
        position = self.worker.files.place.read()
        if position is None:
            return None
        if position.shard != self._shard:
            self._shard = position.shard
            self.accounting.mark("shard", describe_position(position.shard, "", self.plan.shards))
        return describe_position(position.shard, position.tensor, self.plan.shards)
