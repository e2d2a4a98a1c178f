"""A budget of host memory beside one window: growth, or the absolute peak for a share of the machine."""

from pytest_llmmem.core.budgets import Budget, Verdict
from pytest_llmmem.core.meter import Window
from pytest_llmmem.core.readings import Reading, Tree


def window_verdict(window: Window, budget: Budget, *, is_sampled: bool) -> Verdict:
    """Judge the peak of the window. Without samples, a peak that only the high-water mark shows counts as certain."""
    peak = window.peak
    absolute = window.base.unreclaimable_bytes if budget.limit.is_share else 0
    if budget.count != "resident":
        return budget.judge(peak.peak_bytes + absolute, window.excess_bytes if is_sampled else window.mark_error_bytes)
    if budget.limit.is_share:
        return budget.judge(peak.absolute_peak_bytes, window.mark_error_bytes)
    return budget.judge(peak.peak_resident_bytes, window.resident_excess_bytes)


def window_held_bytes(window: Window, budget: Budget, reading: Reading, tree: Tree) -> int:
    """The current use of the worker and its ``tree``, counted as the budget counts."""
    held = window.growth_bytes(reading.unreclaimable_bytes, tree)
    if budget.count == "resident":
        held += reading.file_bytes - window.base.file_bytes
    return held + (window.base.unreclaimable_bytes if budget.limit.is_share else 0)
