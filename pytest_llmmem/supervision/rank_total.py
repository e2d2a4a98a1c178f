"""All ranks of one test together: their memory at one instant, and the budgets that stand over the sum."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self

from pytest_llmmem import probes
from pytest_llmmem.core.budgets import Budget, Verdict
from pytest_llmmem.core.decide import GuardedBudget, Machine
from pytest_llmmem.core.hints import uncertain_notes
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.meter import Window
from pytest_llmmem.core.readings import NOTHING, Peak, Tree
from pytest_llmmem.supervision.highest_sum import HighestSum
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.supervisor import Supervision
from pytest_llmmem.supervision.timeline_recorder import Instant, TimelineRecorder

_TREE_S: Final = 0.05
"""Time between two samples that count shared pages once: each walks the page tables of all ranks."""
_FILE_BYTES: Final = 1_000_000
"""Mapped files beside those of one rank that are too small to be counted."""
_PAUSE: Final = 9
"""Time to the next such sample at least, in durations of the last one: a walk takes processor time from the ranks."""


@dataclass(slots=True)
class RankTotal:
    """Sums the last samples of all ranks.

    Copies are each rank's own, so their sum is exact. What ranks may share (shared memory, pages of one mapped file) counts
    in full for the rank that has most of it, and every 50 ms once for all (proportional set size).
    """

    plan: JobPlan
    """The plan for all ranks together."""
    ranks: Sequence[Supervision]
    clock: Callable[[], float] = time.monotonic
    _started_s: float = field(init=False)
    """Time at which the ranks were begun."""
    _sampled: HighestSum = field(init=False)
    _sampled_each: list[HighestSum] = field(init=False)
    """The same for each rank by itself."""
    _resident: HighestSum = field(init=False)
    """With mapped files."""
    _file_bytes: int = 0
    _base: Tree | None = None
    """Shared pages once, before the test; ``None`` until each rank has begun it."""
    _looks_closely: bool = False
    """Whether the last sample counted shared pages. The machine is sampled equally often."""
    _tree_due_s: float = 0.0
    _timeline: TimelineRecorder = field(default_factory=TimelineRecorder)

    def __post_init__(self) -> None:
        self._started_s = self.clock()
        self._sampled, self._resident = HighestSum(len(self.ranks)), HighestSum(len(self.ranks))
        self._sampled_each = [HighestSum(1) for _ in self.ranks]

    def sample(self, now_s: float) -> None:
        """Take in what the ranks hold now."""
        held = [_Held.of(each) for each in self.ranks]
        copied = [each.accounting.whole.copied_growth_bytes if each.accounting.whole else 0 for each in self.ranks]
        for highest, rank, copied_bytes in zip(self._sampled_each, held, copied, strict=True):
            highest.add(rank.bytes, (copied_bytes,), now_s)
        shared, files = [each.shared_bytes for each in held], [each.file_bytes for each in held]
        shared_bytes, file_bytes = max(shared), max(files)
        windows = [each.window for each in held if each.window]
        self._looks_closely = now_s >= self._tree_due_s and len(windows) == len(held)
        if self._looks_closely:
            self._base = self._base or self._tree_before(windows)
            # the sums are exact, or nearly so, where ranks have nothing to share
            if any(shared) or sum(files) > file_bytes + _FILE_BYTES:
                # copies of inherited pages are not taken from here: each rank counts its own
                tree = self._tree(self._base)
                shared_bytes = min(sum(shared), max(shared_bytes, tree.shmem_bytes))
                file_bytes = min(sum(files), max(file_bytes, tree.file_bytes))
            took_s = self.clock() - now_s
            self._tree_due_s = now_s + took_s + max(_TREE_S, _PAUSE * took_s)
        held_bytes = sum(each.bytes for each in held) - sum(shared) + shared_bytes
        self._sampled.add(held_bytes, copied, now_s)
        self._resident.add(held_bytes + file_bytes, copied, now_s)
        self._file_bytes = max(self._file_bytes, file_bytes)
        if self.plan.draws_timeline and windows:
            self._timeline.sample(
                Instant(
                    seconds=now_s - self._started_s,
                    held_bytes=held_bytes,
                    peak_bytes=0,
                    file_bytes=file_bytes,
                    vram_bytes=sum(each.accounting.vram_held_bytes for each in self.ranks),
                )
            )

    @property
    def _resident_growth_bytes(self) -> int:
        """Copies count before the peak of their segment, which can be at another instant in each of the two sums."""
        return max(self._resident.bytes, self._sampled.bytes)

    @property
    def _unseen_bytes(self) -> int:
        """Bytes that only the ranks' high-water marks show: counted as if all ranks had held them at once."""
        wholes = [each.accounting.whole for each in self.ranks]
        return sum(
            max(0, whole.peak.peak_bytes - sampled.bytes)
            for whole, sampled in zip(wholes, self._sampled_each, strict=True)
            if whole is not None
        )

    def _tree_before(self, windows: "Sequence[Window]") -> Tree:
        """All ranks and the process that they were forked from before the test, shared pages once."""
        workers = [each.worker for each in self.ranks]
        trees = [worker.tree_with(window.base) for worker, window in zip(workers, windows, strict=True)]
        family, twice = workers[0].family, len(workers) - 1
        before = Tree(
            unreclaimable_bytes=sum(tree.unreclaimable_bytes for tree in trees) - twice * family.unreclaimable_bytes,
            resident_bytes=sum(tree.resident_bytes for tree in trees) - twice * family.resident_bytes,
            shmem_bytes=sum(tree.shmem_bytes for tree in trees) - twice * family.shmem_bytes,
        )
        if workers[0].origin is not None:
            return before
        # spawned ranks share the pages of libraries, and no process is their family
        now = probes.shared_once([worker.pid for worker in workers])
        return replace(before, resident_bytes=before.unreclaimable_bytes + min(before.file_bytes, now.file_bytes))

    def _tree(self, base: Tree) -> Tree:
        """Growth of all ranks, their children and the process that they were forked from, shared pages once."""
        workers = [each.worker for each in self.ranks]
        first, pids = workers[0], [worker.pid for worker in workers]
        children = [pid for worker in workers for pid in probes.descendants(worker.pid)]
        origin = () if first.origin is None else (first.origin,)
        tree = probes.shared_once((*pids, *children, *origin), set(first.siblings()).difference(pids))
        return Tree(
            unreclaimable_bytes=max(0, tree.unreclaimable_bytes - base.unreclaimable_bytes),
            resident_bytes=max(0, tree.resident_bytes - base.resident_bytes),
            shmem_bytes=max(0, tree.shmem_bytes - base.shmem_bytes),
        )

    def budgets(self) -> tuple[GuardedBudget, ...]:
        """Budgets, with the memory that all ranks used so far."""
        return tuple(
            GuardedBudget(
                used_bytes=self._verdict(budget).certain_bytes,
                limit_bytes=budget.limit_bytes,
                stops_at_limit=budget.on_breach == "stop",
            )
            for budget in self.plan.budgets
        )

    def machine(self) -> Machine | None:
        """Available memory of the host; ``None`` between two samples that count shared pages."""
        if not self._looks_closely:
            return None
        return Machine(
            available_bytes=probes.host_memory().available_bytes,
            reserve_bytes=self.plan.reserve_bytes,
            growth_bytes=self._sampled.bytes,
        )

    def breach_sentence(self) -> str:
        """The first broken budget, in words."""
        verdicts = (self._verdict(budget) for budget in self.plan.budgets)
        return next(verdict.sentence for verdict in verdicts if not verdict.held)

    def _verdict(self, budget: Budget) -> Verdict:
        """The same while the ranks run and afterwards: what stopped them is what they are judged by."""
        unseen_bytes = self._unseen_bytes
        wholes = [each.accounting.whole for each in self.ranks]
        error_bytes = unseen_bytes + sum(whole.mark_error_bytes for whole in wholes if whole)
        used_bytes = self._used_bytes(budget, unseen_bytes)
        return budget.judge(used_bytes, 0 if budget.kind == "max_disk" else error_bytes)

    def _used_bytes(self, budget: Budget, unseen_bytes: int) -> int:
        if budget.kind == "max_disk":
            return sum(each.accounting.written.bytes or 0 for each in self.ranks)
        base = self._base or NOTHING
        if budget.count == "resident":
            growth_bytes, before_bytes = self._resident_growth_bytes, base.resident_bytes
        else:
            growth_bytes, before_bytes = self._sampled.bytes, base.unreclaimable_bytes
        return growth_bytes + unseen_bytes + (before_bytes if budget.limit.is_share else 0)

    def beside(self, ranks: Sequence[Measured]) -> Measured:
        """The first rank, with what all of them have used together."""
        first = ranks[0]
        peaks = [each.peak for each in ranks if each.peak]
        error_bytes, unseen_bytes = sum(peak.error_bytes for peak in peaks), self._unseen_bytes
        verdicts = [self._verdict(budget) for budget in self.plan.budgets]
        notes = [note for each in ranks for note in each.notes] + list(uncertain_notes(verdicts))
        verdicts += [verdict for each in ranks for verdict in each.verdicts]
        written = [each.written_bytes for each in ranks if each.written_bytes is not None]
        return replace(
            first,
            peak=first.peak and self._peak(first.peak, unseen_bytes, error_bytes),
            verdicts=tuple(verdicts),
            timeline=self._timeline.record() if self.plan.draws_timeline else None,
            written_bytes=sum(written) if written else None,
            notes=tuple(dict.fromkeys(notes)),
        )

    def _peak(self, first: Peak, unseen_bytes: int, error_bytes: int) -> Peak:
        base = self._base or Tree(unreclaimable_bytes=0, resident_bytes=first.baseline_bytes)
        peak_resident_bytes = self._resident_growth_bytes + unseen_bytes
        return replace(
            first,
            baseline_bytes=base.resident_bytes,
            peak_bytes=self._sampled.bytes + unseen_bytes,
            peak_resident_bytes=peak_resident_bytes,
            peak_file_bytes=self._file_bytes,
            absolute_peak_bytes=base.resident_bytes + peak_resident_bytes,
            error_bytes=error_bytes,
            resident_error_bytes=None,
            method="sampled",
        )


@dataclass(frozen=True, slots=True)
class _Held:
    """Memory of one rank and its children, above the beginning of the test; zero before the beginning and after the end."""

    bytes: int = 0
    """Unreclaimable."""
    shared_bytes: int = 0
    """The part that other ranks may share."""
    file_bytes: int = 0
    window: Window | None = None
    """``None`` where the rank does not run."""

    @classmethod
    def of(cls, rank: Supervision) -> Self:
        whole, reading = rank.accounting.whole, rank.sampler.last_reading
        if whole is None or reading is None or rank.is_over:
            return cls()
        return cls(
            whole.growth_bytes(reading.unreclaimable_bytes, rank.accounting.meter.tree),
            max(0, reading.shmem_bytes - whole.base.shmem_bytes),
            max(0, reading.file_bytes - whole.base.file_bytes),
            whole,
        )
