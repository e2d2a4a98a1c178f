"""A test's memory beside its baseline: what changed, by how much, in which part, and whether that counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pytest_llmmem.baselines.explanation import most_of_it_in
from pytest_llmmem.baselines.machine import Match
from pytest_llmmem.baselines.measures import DECIDING
from pytest_llmmem.baselines.tolerance import Tolerance
from pytest_llmmem.baselines.tolerated_changes import Change, changes_between
from pytest_llmmem.baselines.values import Baseline, finished, median_run
from pytest_llmmem.core.records import TestRecord
from pytest_llmmem.core.sizes import format_beside, format_size

Verdict = Literal["grew", "shrank", "held", "uncertain", "new", "gone", "incomparable"]

HEADER: Final = ("", "before", "after", "difference", "", "of", "most of it in", "test")
"""Header of the table whose rows are ``Comparison.rows()``."""

_LOAD: Final = "load"
_STRONGEST: Final[tuple[Verdict, ...]] = ("grew", "uncertain", "shrank", "held")
"""Order of the verdicts: the first one that any measure has is the test's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The comparison of one test with its baseline."""

    nodeid: str
    verdict: Verdict
    tolerance: Tolerance
    before: Baseline | None = None
    """``None`` when there is none."""
    after: Baseline | None = None
    """``None`` of a test that is gone, or did not run to its end."""
    only: tuple[str, ...] = DECIDING
    machine: Match | None = None
    """The machine of the baseline; ``None`` where two reports are compared."""
    why: str = ""
    """Why it is incomparable."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """Every measure that both have; none of what is incomparable."""
        if self.before is None or self.after is None or self.verdict == "incomparable":
            return ()
        return changes_between(self.before, self.after, self.tolerance)

    @property
    def deciding(self) -> tuple[Change, ...]:
        """The measures that decide, those that changed most first."""
        chosen = [change for change in self.changes if change.group in self.only]
        return tuple(sorted(chosen, key=lambda change: (change.verdict != self.verdict, -abs(change.difference_bytes))))

    @property
    def part(self) -> str:
        """The kind of tensors, or the phase, that accounts for most of what grew or shrank; empty when none does."""
        return self._part(self.deciding[0]) if self.verdict in {"grew", "shrank"} else ""

    def _part(self, change: Change) -> str:
        if self.before is None or self.after is None or change.verdict != self.verdict:
            return ""
        return most_of_it_in(change, self.changes, self.before, self.after)

    def sentence(self) -> str:
        """Before, then after, then the difference, in one unit."""
        match self.verdict:
            case "incomparable":
                return f"not compared with {'its' if self.before else 'a'} baseline: {self.why}"
            case "gone":
                return "it has a baseline and is no more"
            case "new":
                used = f": used {format_size(self.after.peak_bytes)} unreclaimable" if self.after else ""
                return f"no baseline yet{used}; --llm-baseline-update writes one"
            case "uncertain":
                return self._sentence_of_uncertain()
            case _:
                return self._sentence_of_both()

    def _sentence_of_uncertain(self) -> str:
        change = self.deciding[0]
        unit = self._unit(change)
        before, after, error = (
            format_size(size, unit) for size in (change.before_bytes, change.after_bytes, change.error_bytes)
        )
        return (
            f"not judged: baseline is {before}, used {after} {change.measure}, and the two can be off by {error}: "
            f"more than the tolerance {self.tolerance.text}"
        )

    def _sentence_of_both(self) -> str:
        if not self.deciding or self.before is None:
            return f"none of {', '.join(self.only)} was measured both times"
        change = self.deciding[0]
        unit = self._unit(change)
        before, after, apart = format_beside(change.before_bytes, change.after_bytes, unit)
        share = f" ({change.share})" if change.group == "tensors" and change.share else ""
        difference = f"{apart} {'more' if change.difference_bytes > 0 else 'less'}{share}"
        part = f", most of it in {self.part}" if self.part else ""
        borrowed = "borrowed" if self.machine and self.machine.borrowed else ""
        origin = ", ".join(word for word in (self.before.commit, borrowed) if word)
        baseline = f"baseline is {before}{f' ({origin})' if origin else ''}"
        sentence = f"{baseline}, used {after} {change.measure}: {difference}{part} (tolerance {self.tolerance.text})"
        return f"{sentence}; --llm-baseline-update keeps the gain" if self.verdict == "shrank" else sentence

    def details(self) -> Iterator[str]:
        """The lines of the report section; none without a baseline."""
        if self.before is None or self.after is None or not self.deciding:
            return
        unit = self._unit(self.deciding[0])
        origin = "; ".join(part for part in (self.before.origin, str(self.machine or "")) if part)
        if origin:
            yield f"baseline  {origin}"
        for change in filter(_is_shown, self.changes):
            yield f"{change.verdict:<10}{change.measure} {_from_to(change.before_bytes, change.after_bytes, unit)}"
        before = self.before.phases
        used = {name: size for name, size in self.after.phases.items() if size or before.get(name)}
        if used:
            yield f"phases    {', '.join(f'{name} {_from_to(before.get(name), used[name], unit)}' for name in used)}"
        decided = self.deciding[0]
        yield (
            f"allowed   {format_size(self.tolerance.bytes(decided.before_bytes), unit)} by {self.tolerance.text}"
            f", {format_size(decided.error_bytes, unit)} for the error of measuring"
        )
        if self.before.spread_bytes is not None:
            yield f"spread    {format_size(self.before.spread_bytes, unit)} between the baseline's {self.before.runs} runs"
        if self.verdict == "grew":
            yield "accept    with --llm-baseline-update"

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Rows of the table, under ``HEADER``: one for each measure that decides. Of the kinds of tensors, those that changed."""
        for change in filter(_is_shown, self.deciding):
            unit = self._unit(change)
            part = self._part(change) if change.verdict in {"grew", "shrank"} else ""
            sizes = _before_after_difference(change.before_bytes, change.after_bytes, unit)
            yield change.verdict, *sizes, change.share, change.measure, part, self.nodeid
        if not self.deciding:
            before, after = (format_size(each.peak_bytes) if each else "" for each in (self.before, self.after))
            yield self.verdict, before, after, "", "", "unreclaimable" if before or after else "", "", self._named()

    def _named(self) -> str:
        return f"{self.nodeid}  [{self.why}]" if self.why else self.nodeid

    def _unit(self, change: Change) -> str:
        """One unit for all, so that a reader can subtract: the tolerance's, else the one that fits the difference."""
        return self.tolerance.unit or format_size(abs(change.difference_bytes) or change.before_bytes).split()[1]


def compare(
    baseline: Baseline | None,
    runs: TestRecord | Sequence[TestRecord],
    tolerance: Tolerance,
    *,
    only: Sequence[str] = DECIDING,
    machine: Match | None = None,
) -> Comparison:
    """Judge a test by its baseline. If the test ran several times, the run with the median peak counts."""
    runs = (runs,) if isinstance(runs, TestRecord) else runs
    record = median_run(runs)
    after = Baseline.of(runs) if all(finished(run) for run in runs) else None
    verdict: Verdict
    why = ""
    if after is None:
        verdict, why = "incomparable", why_not(next(run for run in runs if not finished(run)))
    elif baseline is None:
        verdict = "new"
    elif (_LOAD in baseline.phases) != (_LOAD in after.phases):
        verdict, why = "incomparable", "only one of the two loaded the model itself; run all tests that share it"
    else:
        kinds = {change.verdict for change in changes_between(baseline, after, tolerance) if change.group in only}
        verdict = next(kind for kind in _STRONGEST if kind in kinds or kind == "held")
    return Comparison(
        nodeid=record.full_name, verdict=verdict, tolerance=tolerance, before=baseline, after=after, only=tuple(only),
        machine=machine, why=why,
    )  # fmt: skip


def _is_shown(change: Change) -> bool:
    return not change.is_of_kind or change.verdict != "held"


def why_not(record: TestRecord) -> str:
    """Why a record's peak is not that of the whole test."""
    if record.outcome == "skipped":
        return "skipped"
    if record.ram is None:
        return "nothing was measured"
    ending = record.ending
    words = (ending.kind.replace("_", " "), ending.signal, f"in {ending.phase}" if ending.phase else None)
    return " ".join(word for word in words if word)


def _from_to(before_bytes: int | None, after_bytes: int, unit: str) -> str:
    if before_bytes is None:
        return f"{format_size(after_bytes, unit)} (new)"
    before, after, difference = _before_after_difference(before_bytes, after_bytes, unit)
    return f"{before} to {after} ({difference})"


def _before_after_difference(before_bytes: int, after_bytes: int, unit: str) -> tuple[str, str, str]:
    before, after, apart = format_beside(before_bytes, after_bytes, unit)
    return before, after, f"{'-' if after_bytes < before_bytes else '+'}{apart}"
