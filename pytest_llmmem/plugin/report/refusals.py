"""Memory that a hard limit of ours refused to a test: its budget is broken, although it never used more."""

import re
from dataclasses import replace
from typing import Final

from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.stacks import Stack
from pytest_llmmem.plugin.worker.messages import Raised

_REFUSED: Final = re.compile(
    r"DefaultCPUAllocator: (?:can.t allocate|not enough) memory|Cannot allocate memory|std::bad_alloc"
    r"|\[(?:Errno 12|WinError (?:8|1455))\]|\(os error (?:8|12|1455)\)"
)
"""Texts of libraries and of the system: ``ENOMEM`` is 12, and 8 and 1455 are its like on Windows."""


def with_refusal(measured: Measured, raised: Raised | None) -> Measured:
    """The same, with ``max_ram`` broken, if what the test raised says that memory was refused and a hard limit does that.

    Else without a refusing limit.
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
