"""Parts of a test's record, each with the keys that the JSON has (``docs/json.md``); ``None`` means unknown, never zero."""

from dataclasses import dataclass
from typing import Literal

from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.core.steps import StepMemory

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
    steps: tuple[StepMemory, ...] = ()
    """Memory of training or inference steps in this rank, by kind and phase."""


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
