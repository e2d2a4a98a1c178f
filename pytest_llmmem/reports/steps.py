"""Training and inference steps as lines of a terminal: a row for each phase, a column for each kind of tensor."""

from collections.abc import Iterator, Sequence
from typing import Final

from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.core.steps import KINDS, StepMemory, StepPhase
from pytest_llmmem.reports.tables import Align, text_table

_KEPT: Final = 3
"""Modules that are named with what they keep."""

_HIDDEN_BELOW: Final = 0.001
"""Share of the peak: a kind that is always smaller has no column."""


def step_table(memory: StepMemory, *, of: str) -> Iterator[str]:
    """The phases of the last step and of the peak; what made the peak, and which modules keep most."""
    peak = memory.peak
    if peak is None:
        return
    shown = memory.shown_phases
    kinds = [
        kind for kind in KINDS if any(each.by_kind.get(kind, 0) >= _HIDDEN_BELOW * memory.peak_bytes for each in shown)
    ]
    predicted = (
        {(each.step, each.phase): each.peak_bytes for each in memory.predicted.phases} if memory.predicted else {}
    )
    is_process_known = memory.process_peak_bytes is not None
    beside = [
        name
        for name, known in (
            ("predicted", bool(predicted)),
            ("reserved", memory.reserved_bytes is not None),
            ("process", is_process_known),
        )
        if known
    ]
    head = ["phase", "tensors", *beside, *kinds]
    rows = [head, *(list(_row(each, beside, kinds, predicted)) for each in shown)]
    by = "predicted by the rules of" if memory.name == "predicted_step" else "tensors on"
    yield f"{memory.name} of {of}: step {memory.steps} of {memory.steps}, {by} {memory.device}"
    align: list[Align] = ["right"] * len(head)
    align[0] = "left"
    yield from (f"  {line}" for line in text_table(rows, align=align))
    yield f"  highest: {peak_words(peak)}"
    if memory.kept:
        most = ", ".join(f"{each.place} {format_size(each.bytes)}" for each in memory.kept[:_KEPT])
        yield f"  kept for backward, most: {most}"


def peak_words(peak: StepPhase) -> str:
    """``"810 MB in backward 2, aten.mm.default in model.layers.3.mlp"``."""
    where = f" in {peak.module}" if peak.module else ""
    made = f", {peak.op}{where}" if peak.op else ""
    return f"{format_size(peak.peak_bytes)} in {peak.phase} {peak.step}{made}"


def _row(
    phase: StepPhase, beside: Sequence[str], kinds: Sequence[str], predicted: dict[tuple[int, str], int]
) -> Iterator[str]:
    yield f"{phase.phase} {phase.step}"
    yield format_size(phase.peak_bytes)
    if "predicted" in beside:
        yield _size(predicted.get((phase.step, phase.phase)))
    if "reserved" in beside:
        yield _size(phase.reserved_bytes)
    if "process" in beside:
        yield _size(phase.process_peak_bytes)
    yield from (_size(phase.by_kind.get(kind)) for kind in kinds)


def _size(size_bytes: int | None) -> str:
    return format_size(size_bytes) if size_bytes else ""
