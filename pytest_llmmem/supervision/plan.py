"""What is known of a test before it runs."""

from collections.abc import Callable
from dataclasses import dataclass

from pytest_llmmem.core.budgets import Budget, Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """Its budgets, its time, and where it loads from."""

    budgets: tuple[Budget, ...] = ()
    timeout_s: float | None = None
    reserve_bytes: int = 0
    resolve: Callable[[Limit], int]
    """Bytes of a limit that only the test itself names (``memory_budget``); ``ValueError`` if it cannot be known."""
    shards: tuple[str, ...] = ()
    """Files of the checkpoint that may be loaded, in order."""
    draws_timeline: bool = False
    judges_setup: bool = True
    """Whether setup counts for the budgets: not where it repeats what another test has paid for already."""
    baseline_allows_bytes: int | None = None
    """Unreclaimable growth beyond which a stack is taken; ``None`` without a baseline."""
