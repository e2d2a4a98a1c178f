"""Notes about budgets that held, and about a shared setup: what a verdict alone does not show."""

from collections.abc import Sequence
from typing import Final

from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.core.record_parts import Phase
from pytest_llmmem.core.sizes import format_beside, format_size

SLOW: Final = "with less memory, mapped weights are dropped and read from the disk again and again"
"""The meaning of *slow below*, wherever it is written."""

DIES: Final = "with less memory, the process is killed"
"""The meaning of *dies below*."""

_MOST: Final = 0.5
"""Share of the weights: if more than this never became resident, most of the load's cost is still to come."""


def uncertain_notes(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Budgets that may have been broken, or not: the difference is less than the error of measuring."""
    return tuple(
        f"{verdict.sentence}, uncertain by {format_size(verdict.error_bytes, verdict.unit)}, so it is no failure: "
        "--llm-repeat=3 measures again"
        for verdict in verdicts
        if verdict.is_uncertain
    )


def lazy_load_notes(
    verdicts: Sequence[Verdict], peak: Peak | None, *, weights_bytes: int | None, still_mapped_bytes: int | None
) -> tuple[str, ...]:
    """Why a held budget may promise less than it seems to.

    ``still_mapped_bytes`` are weights that were mapped and not resident at the end of the test.
    """
    held = [verdict for verdict in verdicts if verdict.held and verdict.kind == "max_ram"]
    if not held or peak is None or not weights_bytes:
        return ()
    if still_mapped_bytes is not None and still_mapped_bytes > _MOST * weights_bytes:
        unseen = f"{format_size(still_mapped_bytes)} of {format_size(weights_bytes)} of weights"
        return (
            f"{unseen} were mapped and never resident: a forward pass or loaded_model.touch() makes max_ram see them",
        )
    return tuple(
        _held_without_files(verdict, peak)
        for verdict in held
        if verdict.count == "unreclaimable" and peak.peak_file_bytes > verdict.limit_bytes
    )


def _held_without_files(verdict: Verdict, peak: Peak) -> str:
    limit, files, _ = format_beside(verdict.limit_bytes, peak.peak_file_bytes, verdict.unit)
    return (
        f"held because mapped files do not count: they took {files}, the limit is {limit}; "
        f"{slow_below(peak.peak_resident_bytes)}: {SLOW}; max_ram(..., count='resident') judges both"
    )


def slow_below(resident_bytes: int) -> str:
    """Hint for a load with mapped weights, which ``SLOW`` explains."""
    return f"slow below {format_size(resident_bytes)}"


def setup_again_note(after: str, phases: Sequence[Phase]) -> str:
    """Why a setup counts for no budget: ``after`` is the test in which the worker ended that had set up the same."""
    used_bytes = next((phase.peak_bytes for phase in phases if phase.name == "setup"), None)
    used = "" if used_bytes is None else f" used {format_size(used_bytes)} and"
    return (
        f"its setup{used} counts for no budget: the worker that its group shares ended in {after}, "
        "and what it had set up was set up again"
    )
