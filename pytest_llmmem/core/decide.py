"""The decision about a running job: a pure function of one sample and what was decided before. Times are of one clock."""

from dataclasses import dataclass
from typing import Final, Literal

from pytest_llmmem.core.endings import StopReason

FINISH_FACTOR: Final = 2
"""A test that may finish after its breach is stopped at this multiple of its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedBudget:
    """One budget beside what its stretch of the test has used so far, in bytes."""

    used_bytes: int
    """Certain use: the measured value minus the possible error."""
    limit_bytes: int
    stops_at_limit: bool

    @property
    def room_bytes(self) -> int:
        """Bytes that may still be used before the test is stopped."""
        return self.limit_bytes * (1 if self.stops_at_limit else FINISH_FACTOR) - self.used_bytes

    @property
    def ahead_bytes(self) -> int:
        """Bytes to the next action: at the limit a stack is taken, beyond it the test is stopped."""
        return self.room_bytes if self.breached else self.limit_bytes - self.used_bytes

    @property
    def breached(self) -> bool:
        return self.used_bytes > self.limit_bytes

    @property
    def must_stop(self) -> bool:
        return self.room_bytes < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Free memory of the host, or of the container if its limit is nearer, in bytes."""

    available_bytes: int
    reserve_bytes: int
    growth_bytes: int
    """Growth of the test itself: memory that other processes fill is not its fault."""

    @property
    def exhausted(self) -> bool:
        return (
            self.available_bytes < self.reserve_bytes and self.growth_bytes > self.reserve_bytes - self.available_bytes
        )


def default_reserve_bytes(total_bytes: int) -> int:
    """The larger of 512 MiB and 5 % of the machine."""
    return max(512 * 2**20, total_bytes // 20)


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


def why_stop(
    budgets: tuple[GuardedBudget, ...], machine: Machine | None, *, elapsed_s: float, timeout_s: float | None
) -> StopReason | None:
    """The first reason to end a test now, or ``None``."""
    if any(budget.must_stop for budget in budgets):
        return "over_budget"
    if machine is not None and machine.exhausted:
        return "low_memory"
    if timeout_s is not None and elapsed_s > timeout_s:
        return "timed_out"
    return None
