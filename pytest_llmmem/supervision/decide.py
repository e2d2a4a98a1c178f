"""The decision about a running job: a pure function of one sample and what was decided before. Times are of one clock."""

from dataclasses import dataclass
from typing import Literal

from pytest_llmmem.core.endings import StopReason
from pytest_llmmem.core.guard import GuardedBudget, Machine, why_stop


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Decisions about the job so far."""

    started_s: float
    timeout_s: float | None = None
    stopped: StopReason | None = None
    kill_at_s: float = 0.0
    """Time at which a stopped worker that has not ended by itself is killed."""
    breached: bool = False
    """Whether the stack at the crossing of a budget was taken."""
    grown: bool = False
    """Whether the stack at the crossing of the baseline's allowance was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The content of one sample; empty where there was none, or the job has not begun."""

    budgets: tuple[GuardedBudget, ...] = ()
    """Those that can still be broken."""
    machine: Machine | None = None
    """``None`` where it was not sampled."""
    exceeds_baseline: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """End the job: ask the worker to write its stacks and exit."""

    reason: StopReason


@dataclass(frozen=True, slots=True)
class TakeStack:
    """Have the stack written at which a budget, or the baseline's allowance, was crossed; the job goes on."""

    crossing: Literal["breach", "growth"]


@dataclass(frozen=True, slots=True)
class Kill:
    """End a worker that was asked to exit and did not."""


Action = Stop | TakeStack | Kill


def decide(state: State, seen: Seen, now_s: float) -> Action | None:
    """The most urgent thing to do now; ``None``: go on."""
    if state.stopped is not None:
        return Kill() if now_s > state.kill_at_s else None
    elapsed_s = now_s - state.started_s
    reason = why_stop(seen.budgets, seen.machine, elapsed_s=elapsed_s, timeout_s=state.timeout_s)
    if reason is not None:
        return Stop(reason)
    if not state.breached and any(budget.breached for budget in seen.budgets):
        return TakeStack("breach")
    if not state.grown and seen.exceeds_baseline:
        return TakeStack("growth")
    return None
