"""The section at the end of a run: one aligned table, the worst first."""

from collections.abc import Iterator, Sequence
from typing import Final

from pytest_llmmem.core.hints import SLOW, slow_below
from pytest_llmmem.core.record_parts import TrialRecord
from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.reports.steps import step_table
from pytest_llmmem.reports.tables import text_table
from pytest_llmmem.reports.wording import (
    ending_words,
    limit_words,
    pinned_words,
    rank_words,
    share_words,
    tightest,
    unit_beside,
    vram_words,
    worst_first,
)

_MUCH_MAPPED_BYTES: Final = 50_000_000
"""Below this size, it does not matter that the kernel can drop mapped pages."""
_SHORT: Final = 10
"""Rows without ``-v``."""


def table(record: SessionRecord, *, verbosity: int = 0) -> Iterator[str]:
    """The lines of the section; none when nothing was measured or the run is to be quiet."""
    measured = [test for test in worst_first(record.tests) if test.ram]
    if verbosity < 0 or not measured:
        return
    shown = measured if verbosity > 0 else measured[:_SHORT]
    rows = (("unreclaimable", "+ files", "budget", "", "test"), *(_row(test) for test in shown))
    yield from text_table(rows, align=("right", "right", "right", "right", "left"))
    if len(shown) < len(measured):
        yield f"and {len(measured) - len(shown)} more: -v shows all"
    if verbosity <= 1:
        yield from (f"note: {test.nodeid}: {note}" for test in shown for note in notes_of(test))
    for test in shown:
        # of a test for which none fits, its failure shows them
        if any(trial.fits for trial in test.trials):
            yield f"loads tried for {test.nodeid}:"
            yield from trial_table(test.trials)
    yield from (line for test in shown for memory in test.steps for line in step_table(memory, of=test.nodeid))
    if verbosity > 1:
        for test in shown:
            yield ""
            yield from _full(test)


def notes_of(test: TestRecord) -> tuple[str, ...]:
    """Notes for the reader of a test that did not fail; a failure has them in its own report."""
    found = test.diagnosis.lines[:2] if test.diagnosis and test.outcome == "passed" else ()
    return (*test.notes, *([" ".join(found)] if found else []))


def trial_table(trials: Sequence[TrialRecord]) -> Iterator[str]:
    """The loads that were tried, in order, and the call of the first that fits."""
    rows = [("load", "unreclaimable", "resident", "seconds", "disk", ""), *(_trial_row(trial) for trial in trials)]
    for line in text_table(rows, align=("left", "right", "right", "right", "right", "left")):
        yield f"  {line}"
    call = next((trial.call for trial in trials if trial.fits), None)
    if call:
        yield f"  use: {call}"
    if any(_is_mapped(trial) for trial in trials):
        yield f"  slow below: {SLOW}"


def _trial_row(trial: TrialRecord) -> tuple[str, str, str, str, str, str]:
    def size(number: int | None) -> str:
        return "" if number is None else format_size(number)

    return (
        trial.load,
        size(trial.peak_bytes),
        size(trial.peak_resident_bytes),
        f"{trial.seconds:.1f}",
        size(trial.disk_bytes),
        _fits(trial) if trial.fits else f"{trial.ending.replace('_', ' ')}: {trial.why}",
    )


def _fits(trial: TrialRecord) -> str:
    return f"fits, {slow_below(trial.peak_resident_bytes or 0)}" if _is_mapped(trial) else "fits"


def _is_mapped(trial: TrialRecord) -> bool:
    """Whether a load fits in less memory than it runs fast in."""
    return trial.fits and (trial.peak_resident_bytes or 0) - (trial.peak_bytes or 0) > _MUCH_MAPPED_BYTES


def _row(test: TestRecord) -> tuple[str, str, str, str, str]:
    assert test.ram is not None, "only measured tests have a row"
    budget = tightest(test.budgets)
    limit, used = "", ""
    unit = unit_beside(budget)
    if budget:
        limit = limit_words(budget)
        used = share_words(budget)
    note = "" if test.ending.kind in {"completed", "raised"} else f"  [{ending_words(test.ending)}]"
    peak, files = format_size(test.ram.peak_bytes, unit), format_size(test.ram.peak_file_bytes, unit)
    return peak, files, limit, used, test.nodeid + note


def _full(test: TestRecord) -> Iterator[str]:
    """Every number of one test."""
    assert test.ram is not None, "only measured tests are shown"
    ram = test.ram
    yield f"{test.nodeid}: {test.outcome}, {ending_words(test.ending)}, {test.duration_s:.2f} s"
    yield (
        f"  unreclaimable {format_size(ram.peak_bytes)} ± {format_size(ram.error_bytes)}"
        f", resident {format_size(ram.peak_resident_bytes)}, mapped files {format_size(ram.peak_file_bytes)}"
        f", absolute {format_size(ram.absolute_peak_bytes)} over {format_size(ram.baseline_bytes)} ({ram.method})"
    )
    for phase in test.phases:
        yield f"  {phase.name}: {format_size(phase.peak_bytes)} in {phase.seconds:.2f} s"
    for budget in test.budgets:
        yield f"  {budget.sentence}"
    for vram in test.vram:
        yield f"  vram {vram_words(vram)} ({vram.method})"
    if test.pinned_bytes:
        yield f"  {pinned_words(test.pinned_bytes)}"
    for rank in test.ranks:
        yield f"  rank {rank.rank}: {rank_words(rank)}"
    if test.model:
        yield (
            f"  model {test.model.source}: {test.model.parameters:,} parameters, "
            f"{format_size(test.model.weights_bytes)}, largest shard {format_size(test.model.largest_shard_bytes)}"
        )
        if test.model.mapped_bytes:
            yield f"  {format_size(test.model.mapped_bytes)} were mapped and not resident when the load returned"
    yield from (f"  {note}" for note in notes_of(test))
