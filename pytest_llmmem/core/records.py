"""Records of each test and of the session: the JSON of ``--llm-report``, as values.

Field names are the JSON's keys (schema 1, described in ``docs/json.md``); ``None`` means unknown, never zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.outcomes import Ending
from pytest_llmmem.core.plain_data import build, to_plain
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.core.steps import StepMemory

SCHEMA: Final = 1

DeviceMethod = Literal["process", "device"]
"""Method of the driver's number: memory of the worker's processes, or growth of the whole device's use if it lists none."""

Outcome = Literal["passed", "failed", "skipped", "error", "xfailed", "xpassed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VramRecord:
    """One device's memory, in bytes above what the worker held there when the stretch began."""

    device: str
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    peak_fragmented_bytes: int = 0
    """Unused, in pieces beside tensors, in segments of torch's allocator: its ``inactive_split_bytes``."""
    peak_device_bytes: int | None = None
    """Peak from the driver, sampled, the context included; ``None`` where the driver was not asked."""
    baseline_bytes: int = 0
    """Reserved when the stretch began: what earlier tests have left in a shared worker."""
    method: Literal["allocator"] = "allocator"
    """Source of the other peaks: torch's own counters, exact for torch's allocations."""
    device_method: DeviceMethod | None = None
    """Scope of ``peak_device_bytes``; ``None`` where the driver was not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VramRefusedRecord:
    """Memory of a GPU that was asked for and refused, by torch's own message, in bytes; ``None`` where it is silent."""

    device: str | None
    """``"GPU 0"``."""
    asked_bytes: int | None
    free_bytes: int | None
    total_bytes: int | None
    reserved_unused_bytes: int | None
    """Reserved by torch's allocator, and held by no tensor."""
    allowed_bytes: int | None
    """The most that the allocator may reserve; ``None`` when it may take all."""
    expandable_segments_would_help: bool
    """Whether what was asked for was there, free or reserved, in pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One stretch of the test: setup, load, call, a ``memory_budget`` block; its peak is above its own beginning."""

    name: str
    peak_bytes: int
    seconds: float
    started_s: float = 0.0
    """After the test's beginning."""
    peak_resident_bytes: int | None = None
    vram: tuple[VramRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRecord:
    """A moment of the timeline: a shard that begins, a breach, a death."""

    seconds: float
    kind: Literal["shard", "breach", "death"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineRecord:
    """Samples over the test, as many as its thinning has left; growth above the baseline, in bytes."""

    seconds: tuple[float, ...]
    """After the test's beginning; one for each number below."""
    unreclaimable_bytes: tuple[int, ...]
    file_bytes: tuple[int, ...]
    vram_bytes: tuple[int, ...] = ()
    """All devices together; empty where none was read."""
    marks: tuple[MarkRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A failure that was recognized: what happened, why, and what to try, the best first; a sentence or two each."""

    id: str
    """Stable, and a heading of ``docs/diagnosis.md``: ``"accelerate-missing"``."""
    happened: str
    why: str
    next: tuple[str, ...] = ()
    """Proposed fixes, the best first; three at most."""

    @property
    def lines(self) -> tuple[str, ...]:
        """All texts, for a report; at most five."""
        return (self.happened, self.why, *self.next)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRecord:
    """One rank of a test, or of a launch inside it: what its process held at most, in bytes above its baseline."""

    rank: int
    peak_bytes: int
    """Unreclaimable."""
    peak_resident_bytes: int
    """Peak from the process's high-water mark."""
    baseline_bytes: int = 0
    """Resident before the test; 0 for a process that the test itself has launched."""
    error_bytes: int | None = None
    """Error of ``peak_bytes``; ``None`` where it was only sampled, as for a process that the test has launched."""
    held_bytes: int | None = None
    """This rank's part of the loaded model; ``None`` without a model."""
    ending: Ending | None = None
    """``None`` for a process that the test itself has launched."""
    stack: tuple[str, ...] = ()
    """Python frames at the breach or at the end, the user's own first; empty where it went on to its end."""
    timeline: TimelineRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AliveRecord:
    """Memory held as a limit was crossed: by torch's objects of one class, by gradients, or by all other tensors."""

    name: str
    """``"LlamaForCausalLM"``, ``"AdamW state"``, ``"gradients"``."""
    count: int | None
    """The number of such objects; ``None`` for tensors that belong to none."""
    bytes: int
    """Size of their storages; a shared storage counts for its first object."""

    def words(self) -> str:
        """``"2 LlamaForCausalLM 847 MB"``."""
        return f"{f'{self.count} ' if self.count else ''}{self.name} {format_size(self.bytes)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One strategy of ``first_load_that_fits``, tried in a worker of its own; bytes of growth."""

    load: str
    ending: str
    fits: bool
    peak_bytes: int | None
    peak_resident_bytes: int | None
    seconds: float
    disk_bytes: int
    """Size of its offload folder at the end."""
    call: str = ""
    """The Python call that loads so."""
    why: str = ""
    """One sentence about a load that did not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """The checkpoint that the test used, by its headers, in bytes."""

    source: str
    load: str
    weights_bytes: int
    largest_shard_bytes: int
    parameters: int
    mapped_bytes: int | None = None
    """Bytes of weights mapped but not resident when the load returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineRecord:
    """A test beside its baseline, unreclaimable peaks in bytes."""

    verdict: Literal["held", "grew", "shrank", "uncertain", "new", "incomparable"]
    sentence: str
    machine: str | None
    """Key of the machine that the baseline is of; ``None`` without one."""
    before_bytes: int | None
    after_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRecord:
    """One isolated test."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    nodeid: str
    outcome: Outcome
    duration_s: float
    ending: Ending
    ram: Peak | None
    vram: tuple[VramRecord, ...] = ()
    vram_refused: VramRefusedRecord | None = None
    """GPU memory that was refused; ``None`` unless the test ended by such an exception."""
    phases: tuple[Phase, ...] = ()
    budgets: tuple[Verdict, ...] = ()
    model: ModelRecord | None = None
    stack: tuple[str, ...] = ()
    """Python frames at the breach or at death, the user's own first."""
    stack_at: str | None = None
    """``"the crossing"`` or ``"the end"``; ``None`` without a stack."""
    stack_own: int = 0
    """The number of its frames that are the user's own."""
    stack_cut: int | None = 0
    """The number of frames missing between its ends; ``None`` when the outer end is missing, however long it is."""
    alive: tuple[AliveRecord, ...] = ()
    """Torch's objects as a limit was crossed, listed as soon as Python ran again; the largest first."""
    notes: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None
    timeline: TimelineRecord | None = None
    trials: tuple[TrialRecord, ...] = ()
    """The loads that ``first_load_that_fits`` tried, in order."""
    steps: tuple[StepMemory, ...] = ()
    """Memory of training or inference steps, by kind and phase."""
    ranks: tuple[RankRecord, ...] = ()
    """The ranks of a launch with ``torchrun``, in order; pages shared with others are counted in each."""
    run_peaks_bytes: tuple[int, ...] = ()
    """The unreclaimable peak of every run of ``--llm-repeat``; the record is that of the median run."""
    baseline: BaselineRecord | None = None
    tolerance: str | None = None
    """The tolerance of its marker ``llm_baseline``; ``None``: the session's."""
    pinned_bytes: int | None = None
    """Page-locked host memory that torch held at most, for transfers to a GPU: a part of the unreclaimable one, not above a
    baseline. ``None`` where no GPU was used, or torch does not count it."""
    disk_written_bytes: int | None = None
    """Bytes that the test wrote to storage, as the kernel counts them; ``None`` where that is unknown."""
    location: str | None = None
    """``tests/test_x.py:12``: the file below the root, and the test's first line."""
    cell: str | None = None
    """Name of the cell that ran the test in a merged record; else ``None``."""
    environment: int | None = None
    """Index of its environment in ``environments`` in a merged record; else ``None``."""

    @property
    def full_name(self) -> str:
        """The node id, behind the cell's name in a merged record: unique within any record."""
        return f"{self.cell}: {self.nodeid}" if self.cell else self.nodeid

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what ``to_json`` wrote; unknown keys are passed over, so that newer reports can be read."""
        built: Self = build(cls, data)
        return built


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRecord:
    """One session of a merged record: of a sweep, one model, loaded in one way, in one environment."""

    name: str
    outcome: Literal["passed", "failed", "missing"]
    """``"missing"``: it has no result, since no node could run it."""
    model: str | None = None
    load: str | None = None
    environment: str | None = None
    """Name of the environment in the sweep's file."""
    sentence: str = ""
    """Why it has no tests, or what failed first; empty when it passed."""
    tests: int = 0
    seconds: float | None = None
    node: str | None = None
    """The machine that ran it."""
    claim_bytes: int | None = None
    """The memory that was reserved for it on its node."""
    peak_bytes: int | None = None
    """The highest ``absolute_peak_bytes`` of its tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """All isolated tests of a session, and where they ran; or those of several sessions, merged."""

    environment: Mapping[str, str | int | float | None]
    """The facts that all environments share, in a merged record."""
    tests: tuple[TestRecord, ...]
    interrupted: str | None = None
    """Why the session ended before all of its tests had run: ``"while test_x.py::test_a ran"``; ``None``: it did not."""
    schema: int = SCHEMA
    environments: tuple[Mapping[str, str | int | float | None], ...] = ()
    """The distinct environments of a merged record."""
    cells: tuple[CellRecord, ...] = ()
    """The sessions of a merged record."""

    def environment_of(self, test: TestRecord) -> Mapping[str, str | int | float | None]:
        """The environment of one of the tests."""
        return self.environment if test.environment is None else self.environments[test.environment]

    def to_json(self) -> dict[str, Any]:
        merged = {
            "environments": [dict(each) for each in self.environments],
            "cells": [to_plain(cell) for cell in self.cells],
        }
        return {
            "schema": self.schema,
            "environment": dict(self.environment),
            **(merged if self.cells else {}),
            "interrupted": self.interrupted,
            "tests": [test.to_json() for test in self.tests],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            schema=data["schema"],
            environment=data["environment"],
            tests=tuple(TestRecord.from_json(test) for test in data["tests"]),
            interrupted=data.get("interrupted"),
            environments=tuple(data.get("environments", ())),
            cells=tuple(build(CellRecord, cell) for cell in data.get("cells", ())),
        )
