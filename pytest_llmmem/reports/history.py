"""Many reports as one page: how each test's memory went, and where it changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pytest_llmmem.core.sizes import UNITS, unit_of
from pytest_llmmem.reports.page import fill_page

_STATES: Final = ("grew", "shrank", "came back", "held")
"""The worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The use of a test in one report, and the level that it keeps from there on; in bytes."""

    report: str
    size_bytes: int
    level_bytes: int
    """The level of the first report, or of the last report that left it, which may be this one."""
    allowed_bytes: int
    """Distance from the level that is not a step: the tolerance, and the measurement errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One measure of one test over the reports of one kind of machine."""

    nodeid: str
    machine: str
    measure: str
    points: tuple[Point, ...]
    """At least one point, in the order of the reports; only from reports in which the test completed."""

    @property
    def state(self) -> Literal["grew", "shrank", "came back", "held"]:
        """The change of its level from the first report to the last."""
        first, last = self.points[0], self.points[-1]
        if all(point.level_bytes == first.level_bytes for point in self.points):
            return "held"
        moved_bytes = last.level_bytes - first.level_bytes
        if abs(moved_bytes) <= first.allowed_bytes:
            return "came back"
        return "grew" if moved_bytes > 0 else "shrank"


def render(lines: Sequence[Line], reports: Sequence[str], *, tolerance: str) -> str:
    """The whole page, to be written as UTF-8. ``reports`` are the names of all of them, in order."""
    machines = {line.machine: _seen(lines, line.machine, reports) for line in lines}
    data = {
        "units": UNITS,
        "unit": unit_of(tolerance),
        "tolerance": tolerance,
        "machines": machines,
        "lines": [
            _line(line, machines[line.machine]) for line in sorted(lines, key=lambda line: _STATES.index(line.state))
        ],
    }
    return fill_page(
        "history.html",
        words={"headline": headline(lines, reports), "machines": ", ".join(machines), "tolerance": tolerance},
        data=data,
        styles=("history.css",),
        scripts=("trend.js", "history.js"),
    )


def headline(lines: Iterable[Line], reports: Sequence[str]) -> str:
    """``"12 tests in 30 reports: 3 grew, 1 came back"``."""
    states = [line.state for line in lines]
    changes = ", ".join(f"{states.count(state)} {state}" for state in _STATES[:-1] if state in states)
    tests = len({line.nodeid for line in lines})
    return f"{_counted(tests, 'test')} in {_counted(len(reports), 'report')}: {changes or 'none has changed'}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _seen(lines: Iterable[Line], machine: str, reports: Iterable[str]) -> list[str]:
    """The reports of a machine in which any test ran to its end."""
    seen = {point.report for line in lines if line.machine == machine for point in line.points}
    return [report for report in reports if report in seen]


def _line(line: Line, reports: Sequence[str]) -> dict[str, Any]:
    """A line in columns: where in its machine's reports each point is, and its sizes."""
    places = {report: place for place, report in enumerate(reports)}
    return {
        "nodeid": line.nodeid,
        "machine": line.machine,
        "measure": line.measure,
        "state": line.state,
        "places": [places[point.report] for point in line.points],
        "sizes": [point.size_bytes for point in line.points],
        "levels": [point.level_bytes for point in line.points],
        "allowed": [point.allowed_bytes for point in line.points],
    }
