"""The section at the end of a run: one aligned table, the worst first."""

from collections.abc import Iterator, Sequence
from typing import Final

from pytest_llmmem.core.records import BudgetRecord, SessionRecord, TestRecord
from pytest_llmmem.core.sizes import format_size, unit_of

_SHORT: Final = 10
"""Rows without ``-v``."""
_WORST: Final = {"failed": 0, "error": 0, "xfailed": 1, "xpassed": 1, "passed": 2, "skipped": 3}


def table(record: SessionRecord, *, verbosity: int = 0) -> Iterator[str]:
    """The lines of the section; none when nothing was measured or the run is to be quiet."""
    measured = sorted((test for test in record.tests if test.ram), key=_badness)
    if verbosity < 0 or not measured:
        return
    shown = measured if verbosity > 0 else measured[:_SHORT]
    rows = [("unreclaimable", "+ files", "budget", "", "test"), *(_row(test) for test in shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for peak, files, budget, used, name in rows:
        yield f"{peak:>{widths[0]}}  {files:>{widths[1]}}  {budget:>{widths[2]}} {used:>{widths[3]}}  {name}".rstrip()
    if len(shown) < len(measured):
        yield f"and {len(measured) - len(shown)} more: -v shows all"
    if verbosity > 1:
        for test in shown:
            yield ""
            yield from _full(test)


def _row(test: TestRecord) -> tuple[str, str, str, str, str]:
    assert test.ram is not None, "only measured tests have a row"
    budget = tightest(test.budgets)
    limit, used = "", ""
    unit = unit_of(budget.limit) if budget else None
    if budget:
        limit = format_size(budget.limit_bytes, unit)
        used = f"{budget.actual_bytes / budget.limit_bytes:.0%}" if budget.limit_bytes else ""
    note = "" if test.ending.kind in {"completed", "raised"} else f"  [{ending_words(test)}]"
    peak, files = format_size(test.ram.peak_bytes, unit), format_size(test.ram.peak_file_bytes, unit)
    return peak, files, limit, used, test.nodeid + note


def _full(test: TestRecord) -> Iterator[str]:
    """Every number of one test."""
    assert test.ram is not None, "only measured tests are shown"
    ram = test.ram
    yield f"{test.nodeid}: {test.outcome}, {ending_words(test)}, {test.duration_s:.2f} s"
    yield (
        f"  unreclaimable {format_size(ram.peak_bytes)} ± {format_size(ram.error_bytes)}"
        f", resident {format_size(ram.peak_resident_bytes)}, mapped files {format_size(ram.peak_file_bytes)}"
        f", absolute {format_size(ram.absolute_peak_bytes)} over {format_size(ram.baseline_bytes)} ({ram.method})"
    )
    for phase in test.phases:
        yield f"  {phase.name}: {format_size(phase.peak_bytes)} in {phase.seconds:.2f} s"
    for budget in test.budgets:
        name = f" {budget.name!r}" if budget.name else ""
        yield (
            f"  {budget.kind}{name} {budget.limit} = {format_size(budget.limit_bytes)}: "
            f"{format_size(budget.actual_bytes)} {budget.count}, {'held' if budget.held else 'broken'}"
        )
    if test.model:
        yield (
            f"  model {test.model.source}: {test.model.parameters:,} parameters, "
            f"{format_size(test.model.weights_bytes)}, largest shard {format_size(test.model.largest_shard_bytes)}"
        )
        if test.model.mapped_bytes:
            yield f"  {format_size(test.model.mapped_bytes)} were mapped and not resident when the load returned"
    yield from (f"  {note}" for note in test.notes)


def ending_words(test: TestRecord) -> str:
    """``"crashed SIGSEGV in call"``."""
    ending = test.ending
    code = f"code {ending.exit_code}" if ending.exit_code is not None else None
    words = (ending.kind.replace("_", " "), ending.signal or code, f"in {ending.phase}" if ending.phase else None)
    return " ".join(word for word in words if word)


def tightest(budgets: Sequence[BudgetRecord]) -> BudgetRecord | None:
    """The budget that is used most, as a share of itself."""
    return max(budgets, key=lambda budget: budget.actual_bytes / max(1, budget.limit_bytes), default=None)


def _badness(test: TestRecord) -> tuple[int, float, int]:
    budget = tightest(test.budgets)
    share = budget.actual_bytes / max(1, budget.limit_bytes) if budget else 0.0
    return _WORST[test.outcome], -share, -(test.ram.peak_bytes if test.ram else 0)
