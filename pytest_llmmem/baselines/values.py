"""A test's baseline, and a baselines file, as values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.core.steps import StepMemory

_KEPT = 10
"""Patterns of modules in a baseline, those that keep most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBaseline:
    """Tensors of the steps that one fixture or block has measured or predicted, in bytes."""

    peak_bytes: int
    largest_by_kind: Mapping[str, int] = field(default_factory=dict)
    kept_by_pattern: Mapping[str, int] = field(default_factory=dict)
    """Kept for the backward pass, by module with the layers in one number; the largest ten."""

    @classmethod
    def of(cls, memory: StepMemory) -> Self:
        largest = sorted(memory.kept_by_pattern.items(), key=lambda each: -each[1])[:_KEPT]
        return cls(
            peak_bytes=memory.peak_bytes,
            largest_by_kind=dict(memory.largest_by_kind),
            kept_by_pattern=dict(largest),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The use of one test, in bytes of growth, with the names of its record."""

    peak_bytes: int
    """Unreclaimable."""
    peak_resident_bytes: int
    peak_file_bytes: int
    error_bytes: int
    """Error of ``peak_bytes``."""
    resident_error_bytes: int
    """The same of ``peak_resident_bytes``."""
    peak_reserved_bytes: Mapping[str, int] = field(default_factory=dict)
    """Peak of each device, by its name; a device that is not here was not measured."""
    phases: Mapping[str, int] = field(default_factory=dict)
    """The peak of each phase above its own beginning, in the order in which they began."""
    steps: Mapping[str, StepBaseline] = field(default_factory=dict)
    """Training and inference steps, by the name of the fixture or block."""
    runs: int = 1
    """Number of measured runs; the numbers are those of the run with the median peak."""
    spread_bytes: int | None = None
    """Difference between the smallest and the largest peak of the runs; ``None`` for one run."""
    commit: str | None = None
    date: str | None = None
    """Date of the measurement, in ISO 8601."""

    @classmethod
    def of(cls, runs: Sequence[TestRecord], *, commit: str | None = None, date: str | None = None) -> Self:
        """The baseline of one test that has run to its end, once or several times."""
        middle = median_run(runs)
        assert middle.ram is not None, "a run that has finished was measured"
        peaks = [run.ram.peak_bytes for run in runs if run.ram]
        phases: dict[str, int] = {}
        for phase in middle.phases:  # a name that is there twice, as of a block in a loop, counts with its largest
            phases[phase.name] = max(phase.peak_bytes, phases.get(phase.name, 0))
        return cls(
            peak_bytes=middle.ram.peak_bytes,
            peak_resident_bytes=middle.ram.peak_resident_bytes,
            peak_file_bytes=middle.ram.peak_file_bytes,
            error_bytes=middle.ram.error_bytes,
            resident_error_bytes=_first_known(middle.ram.resident_error_bytes, middle.ram.error_bytes),
            peak_reserved_bytes={each.device: each.peak_reserved_bytes for each in middle.vram},
            phases=phases,
            steps={memory.name: StepBaseline.of(memory) for memory in middle.steps},
            runs=len(runs),
            spread_bytes=max(peaks) - min(peaks) if len(runs) > 1 else None,
            commit=commit,
            date=date,
        )

    @property
    def origin(self) -> str:
        """``"abc1234, 2026-10-03"``: as much of it as is known."""
        return ", ".join(part for part in (self.commit, self.date and self.date.partition("T")[0]) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """A baselines file: for each machine key, the baseline of each test by its node id."""

    machines: Mapping[str, Mapping[str, Baseline]] = field(default_factory=dict)

    def of(self, key: str) -> Mapping[str, Baseline]:
        """The baselines under this key; none when it is not there."""
        return self.machines.get(key, {})

    def updated(self, key: str, tests: Mapping[str, Baseline], *, gone: Iterable[str] = ()) -> "Baselines":
        """Replace the baselines of these tests, and remove those that are gone."""
        kept = {nodeid: each for nodeid, each in self.of(key).items() if nodeid not in set(gone)}
        machines = {**self.machines, key: {**kept, **tests}}
        return Baselines(machines={key: tests for key, tests in machines.items() if tests})

    def merged(self, other: "Baselines") -> "Baselines":
        """All that is in either; where both have a test, the one that was measured later."""
        machines: dict[str, dict[str, Baseline]] = {}
        for each in (self, other):
            for key, tests in each.machines.items():
                into = machines.setdefault(key, {})
                for nodeid, baseline in tests.items():
                    into[nodeid] = max(baseline, into.get(nodeid, baseline), key=_age)
        return Baselines(machines=machines)


def _first_known(size: int | None, other: int) -> int:
    return other if size is None else size


def _age(baseline: Baseline) -> tuple[str, str]:
    """Later is larger; of two of one moment, any, as long as it is the same one whichever comes first."""
    return baseline.date or "", repr(baseline)


def finished(record: TestRecord) -> bool:
    """Whether the test ran to its end, so that its peak is the whole test's; its budgets may be broken."""
    ending = record.ending
    ended = ending.kind in {"completed", "over_budget"} and ending.phase is None and ending.error is None
    return ended and record.ram is not None and record.outcome != "skipped"


def median_run(runs: Sequence[TestRecord]) -> TestRecord:
    """The run of a test with the median peak; of two, the smaller."""
    ordered = sorted(runs, key=lambda run: run.ram.peak_bytes if run.ram else 0)
    return ordered[(len(ordered) - 1) // 2]


def runs_by_test(sessions: Iterable[SessionRecord]) -> dict[str, tuple[TestRecord, ...]]:
    """The records of each test, over all sessions, by its full name."""
    runs: dict[str, tuple[TestRecord, ...]] = {}
    for session in sessions:
        for record in session.tests:
            runs[record.full_name] = (*runs.get(record.full_name, ()), *runs_of(record))
    return runs


def runs_of(record: TestRecord) -> tuple[TestRecord, ...]:
    """A record once for each of its runs, as far as a baseline needs them: with that run's peak."""
    if record.ram is None or not record.run_peaks_bytes:
        return (record,)
    return tuple(replace(record, ram=replace(record.ram, peak_bytes=peak)) for peak in record.run_peaks_bytes)
