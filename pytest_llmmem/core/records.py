"""Records of each test and of the session: the JSON of ``--llm-report``, as values.

Field names are the JSON's keys (schema 1, described in ``docs/json.md``); ``None`` means unknown, never zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.children import ChildrenRecord
from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.plain_data import build, to_plain
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.core.record_parts import (
    AliveRecord,
    BaselineRecord,
    Diagnosis,
    ModelRecord,
    Outcome,
    Phase,
    RankRecord,
    TimelineRecord,
    TrialRecord,
    VramRecord,
    VramRefusedRecord,
)
from pytest_llmmem.core.steps import StepMemory

SCHEMA: Final = 1


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
    children: ChildrenRecord | None = None
    """The processes that the test had started, when all together held most; ``None`` where they held less than a megabyte."""
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
class EarlierCell:
    """The same cell in an earlier sweep."""

    sweep: str
    """When that sweep ended, in UTC: ``"2026-11-29T02-47-10Z"``."""
    outcome: Literal["passed", "failed", "missing"]
    peak_bytes: int | None = None


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
    earlier: tuple[EarlierCell, ...] = ()
    """The cell in earlier sweeps into the same folder, the oldest first."""


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
