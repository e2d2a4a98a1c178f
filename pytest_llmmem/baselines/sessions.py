"""Two session reports side by side, as of two branches."""

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_llmmem.baselines.compare import Comparison, compare, why_not
from pytest_llmmem.baselines.machine import machine_key
from pytest_llmmem.baselines.tolerance import Tolerance
from pytest_llmmem.baselines.values import Baseline, finished, runs_by_test
from pytest_llmmem.core.records import SessionRecord

_ORDER = ("grew", "shrank", "uncertain", "incomparable", "new", "gone", "held")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Comparisons of all tests that are in either report."""

    comparisons: tuple[Comparison, ...]
    """Sort order: grown tests first, and the largest growth first."""
    notes: tuple[str, ...] = ()
    """Why the two may differ by more than the code."""

    def rows(self, *, verbosity: int = 0) -> Iterator[tuple[str, ...]]:
        """Rows under ``compare.HEADER``; those that held only when asked for."""
        for comparison in self.comparisons:
            if verbosity > 0 or comparison.verdict != "held":
                yield from comparison.rows()

    def summary(self) -> str:
        """``"1 grew, 2 held"``."""
        verdicts = [comparison.verdict for comparison in self.comparisons]
        return ", ".join(f"{verdicts.count(each)} {each}" for each in _ORDER if each in verdicts) or "no tests"


def compare_sessions(old: SessionRecord, new: SessionRecord, tolerance: Tolerance) -> Sessions:
    """Compare two reports test by test; several records of one test are its runs, and the middle one counts."""
    before, after = runs_by_test([old]), runs_by_test([new])
    comparisons = []
    for nodeid in before.keys() | after.keys():
        old_runs, new_runs = before.get(nodeid, ()), after.get(nodeid, ())
        baseline = Baseline.of(old_runs) if old_runs and all(finished(run) for run in old_runs) else None
        if not new_runs:
            comparison = Comparison(nodeid=nodeid, verdict="gone", tolerance=tolerance, before=baseline)
        else:
            comparison = compare(baseline, new_runs, tolerance)
            if old_runs and baseline is None and comparison.verdict == "new":
                why = f"before: {why_not(next(run for run in old_runs if not finished(run)))}"
                comparison = Comparison(
                    nodeid=nodeid, verdict="incomparable", tolerance=tolerance, after=comparison.after, why=why
                )
        comparisons.append(comparison)
    return Sessions(comparisons=tuple(sorted(comparisons, key=_rank)), notes=tuple(_notes(old, new)))


def machines_of(session: SessionRecord) -> dict[int | None, str]:
    """The machine key of each environment in a report, by its facts and the devices that its tests used.

    By its index in a merged record; by ``None`` in any other.
    """
    indexes = range(len(session.environments)) if session.environments else (None,)
    devices: dict[int | None, set[str]] = {index: set() for index in indexes}
    for test in session.tests:
        devices[test.environment].update(each.device for each in test.vram)
    facts = {index: session.environment if index is None else session.environments[index] for index in indexes}
    return {index: machine_key(facts[index], devices[index]) for index in indexes}


def _rank(comparison: Comparison) -> tuple[int, int, str]:
    most = comparison.deciding[0].difference_bytes if comparison.deciding else 0
    return _ORDER.index(comparison.verdict), -abs(most), comparison.nodeid


def _notes(old: SessionRecord, new: SessionRecord) -> Iterator[str]:
    before, after = (", ".join(sorted(set(machines_of(session).values()))) for session in (old, new))
    if before != after:
        yield f"the machines differ: {before} before, {after} after"
    malloc = tuple(session.environment.get("malloc") for session in (old, new))
    if malloc[0] != malloc[1]:
        yield f"--llm-malloc differs: {malloc[0]} before, {malloc[1]} after"
