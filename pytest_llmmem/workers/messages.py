"""Messages between a worker and its parent, pickled one after another.

Every message of a boundary carries the reading that the worker took of itself just before it reset its mark: the
numbers of a worker that dies later are complete up to its last word.
"""

from dataclasses import dataclass
from typing import Any

from pytest_llmmem.core.limits import Limit
from pytest_llmmem.core.meter import NONE_COPIED, Copied
from pytest_llmmem.core.readings import Peak, Reading
from pytest_llmmem.core.vram import VramReading
from pytest_llmmem.probes.host import Spans

__all__ = [
    "Accepted",
    "Boundary",
    "Finished",
    "GpusRead",
    "Message",
    "Opening",
    "Payload",
    "Ready",
    "Run",
    "Spent",
    "Streams",
]


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker can take a job."""

    reading: Reading
    private_bytes: int
    """Anonymous pages that were its own already; what it shares with others was inherited."""
    libraries: Spans = ()
    """Files that were mapped already."""


@dataclass(frozen=True, slots=True)
class Run:
    """Parent to worker: run this job; ``last`` when no other will follow."""

    job: Any
    last: bool
    waits: bool
    """Whether it waits at each boundary for the parent's sample (``GpusRead``) of values that only the parent can read."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A window of the measurement that begins: the test, a phase, a ``memory_budget`` block."""

    name: str
    limit: Limit | None = None
    """A block's own limit, to be answered by ``Accepted``; ``None`` when it is only measured."""
    keeps: Limit | None = None
    """Limit of the memory that it leaves when it ends; answered in the same way."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """Boundary between two stretches of a job: some innermost windows end, and others begin."""

    reading: Reading
    closes: int = 0
    opens: tuple[Opening, ...] = ()
    copied: Copied = NONE_COPIED
    """Since the worker was ready."""
    written_bytes: int | None = None
    """Bytes that the worker, and children that it has waited for, wrote to storage since it began."""
    wants_peak: bool = False
    """Whether the worker waits for the closed window's peak (``Spent``)."""
    vram: tuple[VramReading, ...] = ()
    """Peaks of each device that the worker uses, since the last boundary."""
    pinned_bytes: int | None = None
    """Page-locked host memory that torch held at most since the last boundary."""


@dataclass(frozen=True, slots=True)
class GpusRead:
    """Parent to worker: go on beyond the boundary."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Parent to worker: whether a window's limit can be worked out here."""

    complaint: str | None


@dataclass(frozen=True, slots=True)
class Spent:
    """Parent to worker: what the window used; ``limit_bytes`` is ``None`` when it had no limit."""

    peak: Peak
    kept_bytes: int
    """Unreclaimable growth when it ended; below zero when it has freed what was there before."""
    limit_bytes: int | None
    breach: str | None
    """The sentences of its breaches."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A message from the body to its owner; opaque here."""

    what: Any


@dataclass(frozen=True, slots=True)
class Streams:
    """New targets of the body's output, if it goes to files: this many descriptors come with the message."""

    count: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is done; the last word about it."""


Message = Boundary | Payload | Finished
"""What a worker says of its job. ``Ready`` comes before any, and ``Streams`` is for its own side of the channel."""
