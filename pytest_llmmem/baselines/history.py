"""Many reports in a row: how each test's memory went, and where it changed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_llmmem.baselines.reading import read_report
from pytest_llmmem.baselines.sessions import machines_of
from pytest_llmmem.baselines.tolerance import Tolerance
from pytest_llmmem.baselines.tolerated_changes import Change, signed
from pytest_llmmem.baselines.values import Baseline, finished, runs_by_test
from pytest_llmmem.core.errors import BaselineError
from pytest_llmmem.core.records import SessionRecord
from pytest_llmmem.core.sizes import format_size

HEADER: Final = ("reports", "first", "last", "change", "of", "changed at", "test")
"""Header of the table whose rows are ``Trend.row()``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measure of one test in one report, in bytes."""

    report: str
    size_bytes: int
    error_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The point at which a test left its level."""

    report: str
    change: Change

    def __str__(self) -> str:
        return f"{self.report} ({signed(self.change.difference_bytes, self.change.tolerance.unit)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """One measure of one test over the reports of one kind of machine."""

    nodeid: str
    machine: str
    measure: str
    """``"unreclaimable"``, or VRAM with the device."""
    points: tuple[Point, ...]
    """Points in the order of the reports; only from reports in which the test completed."""
    tolerance: Tolerance

    @property
    def steps(self) -> tuple[Step, ...]:
        """Changes beyond the tolerance against the level since the last one, so that a slow climb counts too."""
        steps = []
        level = self.points[0]
        for point in self.points[1:]:
            change = self._change(level, point)
            if change.verdict in {"grew", "shrank"}:
                steps.append(Step(report=point.report, change=change))
                level = point
        return tuple(steps)

    def row(self) -> tuple[str, ...]:
        """A row of the table, under ``HEADER``."""
        first, last = self.points[0], self.points[-1]
        change = self._change(first, last)
        sizes = (format_size(size, self.tolerance.unit) for size in (first.size_bytes, last.size_bytes))
        steps = ", ".join(str(step) for step in self.steps)
        return str(len(self.points)), *sizes, change.share, self.measure, steps, self.nodeid

    def _change(self, before: Point, after: Point) -> Change:
        return Change(
            measure=self.measure,
            before_bytes=before.size_bytes,
            after_bytes=after.size_bytes,
            error_bytes=before.error_bytes + after.error_bytes,
            tolerance=self.tolerance,
        )


def read_reports(folder: Path) -> tuple[tuple[str, SessionRecord], ...]:
    """Every ``*.json`` of a folder but traces with its name, in the order of the numbers and words in the names.

    Raises ``BaselineError`` when there is none, or one that is no report.
    """
    reports = (path for path in folder.glob("*.json") if not path.name.endswith("trace.json"))
    paths = sorted(reports, key=lambda path: _natural(path.stem))
    if not paths:
        what = "no *.json in it" if folder.is_dir() else "there is no such folder"
        msg = f"{folder}: {what}: name a folder with reports of --llm-report"
        raise BaselineError(msg)
    return tuple((path.stem, read_report(path)) for path in paths)


def trends(reports: Sequence[tuple[str, SessionRecord]], tolerance: Tolerance) -> tuple[Trend, ...]:
    """The trend of each test and measure, apart for each kind of machine, those that have changed most first."""
    points: dict[tuple[str, str, str], list[Point]] = {}
    for name, session in reports:
        machines = machines_of(session)
        for nodeid, runs in runs_by_test([session]).items():
            if not all(finished(run) for run in runs):
                continue
            for measure, point in _points(name, Baseline.of(runs)):
                points.setdefault((machines[runs[0].environment], nodeid, measure), []).append(point)
    found = (
        Trend(machine=machine, nodeid=nodeid, measure=measure, points=tuple(of_test), tolerance=tolerance)
        for (machine, nodeid, measure), of_test in points.items()
    )
    return tuple(sorted(found, key=_rank))


def _points(report: str, test: Baseline) -> Iterator[tuple[str, Point]]:
    yield "unreclaimable", Point(report=report, size_bytes=test.peak_bytes, error_bytes=test.error_bytes)
    for device, size in test.peak_reserved_bytes.items():
        yield f"vram {device}", Point(report=report, size_bytes=size, error_bytes=0)


def _rank(trend: Trend) -> tuple[str, bool, int, str, str]:
    most = max((abs(step.change.difference_bytes) for step in trend.steps), default=0)
    return trend.machine, not trend.steps, -most, trend.nodeid, trend.measure


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """``run-9`` before ``run-10``."""
    return tuple((int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name))
