"""Verdicts that need what the test itself said: on the growth of its calls, and on memory that a hard limit refused it."""

import re
from dataclasses import replace
from typing import Final

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.growth import MemoryGrowth
from pytest_llmmem.core.hints import uncertain_notes
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.stacks import Stack
from pytest_llmmem.plugin.worker.messages import Raised

_REFUSED: Final = re.compile(
    r"DefaultCPUAllocator: (?:can.t allocate|not enough) memory|Cannot allocate memory|std::bad_alloc"
    r"|\[(?:Errno 12|WinError (?:8|1455))\]|\(os error (?:8|12|1455)\)"
)
"""Texts of libraries and of the system: ``ENOMEM`` is 12, and 8 and 1455 are its like on Windows."""


def with_growth(measured: Measured, budget: Budget | None, growth: MemoryGrowth | None) -> Measured:
    """The same, judged by ``max_growth`` too where all calls were made."""
    if budget is None or growth is None:
        return measured
    verdict = budget.judge(max(0, growth.per_call_bytes), growth.error_bytes)
    notes = (*measured.notes, *uncertain_notes((verdict,)))
    return replace(measured, verdicts=(*measured.verdicts, verdict), notes=notes)


def with_refusal(measured: Measured, raised: Raised | None) -> Measured:
    """``max_ram`` is broken, although no more was used, if a hard limit refused memory and the test raised because of it.

    Else there was no refusing limit.
    """
    by = measured.refusing_limit
    budgets = [each for each in measured.verdicts if each.kind == "max_ram" and each.rank == measured.ending.rank]
    if by is None or raised is None or not budgets or not is_refusal(raised):
        return replace(measured, refusing_limit=None)
    strictest = min(budgets, key=lambda budget: budget.limit_bytes)
    frames = tuple(frame for frame in raised.stack if not frame.is_machinery)
    return replace(
        measured,
        verdicts=tuple(each.refused(by) if each is strictest else each for each in measured.verdicts),
        stack=Stack(frames=frames, at="the crossing"),
    )


def is_refusal(raised: Raised) -> bool:
    """Whether an error says that host memory was refused."""
    if raised.out_of_vram is not None:
        return False
    name = raised.type.rpartition(".")[2]
    # numpy's own is _ArrayMemoryError
    return name.endswith("MemoryError") or _REFUSED.search(raised.text) is not None
