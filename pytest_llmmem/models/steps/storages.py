"""Peaks from a log of storages that appear and disappear.

The purpose of a storage is often known only later: a gradient is the result of an operation until it is accumulated. So
each event refers to its storage, whose kind may still change, and a step is added up when it is over.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pytest_llmmem.core.steps import KeptActivations, Kind, StepMemory, StepPhase, module_pattern
from pytest_llmmem.models.steps.caching_allocator import Block, CachingAllocator
from pytest_llmmem.models.steps.phases import Stage

_KEPT: Final = 10
"""Number of modules that are reported with the tensors they keep for the backward pass."""


@dataclass(eq=False, slots=True)
class Storage:
    """Memory of one or several tensors."""

    nbytes: int
    stage: Stage
    """The stage in which it appeared."""

    op: Any
    """The operation that made it; ``None`` for an earlier storage."""

    module: str
    kind: Kind = "temporary"
    is_gathered: bool = False
    """Whether it holds weights that FSDP gathers and releases: temporary, even if they are kept for the backward pass."""
    counted_as: Kind | None = None
    """The kind under which the balance counts it; ``None`` while it is not counted."""
    block: Block | None = None
    """Its block in the model of the allocator; ``None`` without one."""


class Event(NamedTuple):
    """A storage that appears or disappears."""

    stage: Stage
    storage: Storage
    is_new: bool


@dataclass(slots=True)
class _Phase:
    peak_bytes: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    storage: Storage | None = None
    end_by_kind: dict[str, int] = field(default_factory=dict)
    reserved_bytes: int | None = None


class StorageLog:
    """The events of the storages of one device."""

    def __init__(self, allocator: CachingAllocator | None = None) -> None:
        """``allocator`` models the memory that a GPU reserves for the storages."""
        self._allocator = allocator
        self.events: list[Event] = []
        """The events that were not yet added up."""
        self._balance: Counter[str] = Counter()
        self._total = 0
        self._counted: set[Storage] = set()
        self._phases: dict[tuple[int, str], _Phase] = {}
        self._largest: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._last: _Phase | None = None

    def appeared(self, storage: Storage) -> None:
        """Record the allocation of a storage."""
        self.events.append(Event(storage.stage, storage, is_new=True))

    def disappeared(self, storage: Storage, stage: Stage) -> None:
        """Record the release of a storage."""
        self.events.append(Event(stage, storage, is_new=False))

    def cache_holds(self, nbytes: int) -> None:
        """Record the cache's size after a model call. During the call, each layer's part is in memory twice while it grows."""
        self._largest["kv_cache"] = max(self._largest["kv_cache"], nbytes)

    def held_bytes(self, kind: Kind) -> int:
        """Bytes of a kind after the last event that was added up."""
        return self._balance[kind]

    def add_up(self) -> None:
        """Add all events to the balance. A later change of a storage's kind is corrected in the next call."""
        self._find_activations()
        for storage in self._counted:
            if storage.kind != storage.counted_as:
                self._count(storage, -1)
                self._count(storage, +1)
        for stage, storage, is_new in self.events:
            phase = self._phase(stage)
            self._reserve(storage, phase, is_new=is_new)
            if not is_new:
                if storage.counted_as is not None:
                    self._count(storage, -1)
                    self._counted.discard(storage)
                continue
            self._count(storage, +1)
            self._counted.add(storage)
            kind = storage.kind
            if kind != "kv_cache":
                self._largest[kind] = max(self._largest[kind], self._balance[kind])
            if self._total > phase.peak_bytes:
                phase.peak_bytes, phase.storage = self._total, storage
                phase.by_kind = {kind: size for kind, size in self._balance.items() if size}
        self.events.clear()
        if self._last is not None:
            self._last.end_by_kind = {kind: size for kind, size in self._balance.items() if size}

    def memory(self, *, name: str, device: str, trainable: tuple[int, int]) -> StepMemory:
        """The memory of all events so far; ``trainable`` is a number of elements and of bytes."""
        phases = tuple(
            StepPhase(
                step=step,
                phase=phase,
                peak_bytes=found.peak_bytes,
                by_kind=found.by_kind,
                op=str(found.storage.op or "") if found.storage else "",
                module=found.storage.module if found.storage else "",
                end_by_kind=found.end_by_kind,
                reserved_bytes=found.reserved_bytes,
            )
            for (step, phase), found in self._phases.items()
            if found.peak_bytes
        )
        kept = tuple(KeptActivations(module=module, bytes=size) for module, size in self._kept.most_common(_KEPT))
        by_pattern: Counter[str] = Counter()
        for module, size in self._kept.items():
            by_pattern[module_pattern(module)] += size
        largest = {kind: size for kind, size in self._largest.items() if size}
        parameters, nbytes = trainable
        return StepMemory(
            name=name,
            device=device,
            phases=phases,
            largest_by_kind=largest,
            kept=kept,
            kept_by_pattern=dict(by_pattern.most_common()),
            trainable_parameters=parameters,
            trainable_bytes=nbytes,
        )

    def _phase(self, stage: Stage) -> _Phase:
        found = self._phases.get(stage[:2])
        if found is None:
            found = self._phases[stage[:2]] = _Phase()
        if found is not self._last:
            if self._last is not None:
                self._last.end_by_kind = {kind: size for kind, size in self._balance.items() if size}
            self._last = found
            if self._total > found.peak_bytes:  # memory that the phase before has left
                found.peak_bytes, found.storage = self._total, None
                found.by_kind = {kind: size for kind, size in self._balance.items() if size}
        return found

    def _reserve(self, storage: Storage, phase: _Phase, *, is_new: bool) -> None:
        if self._allocator is None:
            return
        if is_new:
            storage.block = self._allocator.allocate(storage.nbytes)
        elif storage.block is not None:
            self._allocator.free(storage.block)
        phase.reserved_bytes = self._allocator.reserved_bytes

    def _count(self, storage: Storage, sign: int) -> None:
        if sign > 0:
            storage.counted_as = storage.kind
        assert storage.counted_as is not None, "what is taken out was put in"
        self._balance[storage.counted_as] += sign * storage.nbytes
        self._total += sign * storage.nbytes

    def _find_activations(self) -> None:
        """Mark the activations: storages of a forward pass that still exist when its backward pass begins."""
        made: dict[Storage, None] = {}
        before: Stage | None = None
        for stage, storage, is_new in self.events:
            if stage != before:
                if before is not None and before.phase == "forward" and stage.phase == "backward":
                    self._keep(made)
                made, before = {}, stage
            if is_new:
                made[storage] = None
            else:
                made.pop(storage, None)

    def _keep(self, made: dict[Storage, None]) -> None:
        by_module: Counter[str] = Counter()
        for storage in made:
            if storage.kind == "temporary" and not storage.is_gathered:
                storage.kind = "activations"
            if storage.kind == "activations":
                by_module[storage.module] += storage.nbytes
        if by_module.total() > self._kept.total():
            self._kept = by_module
