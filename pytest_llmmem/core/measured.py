"""The measurement of one job that has ended."""

from dataclasses import dataclass

from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.children import ChildrenRecord
from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.core.record_parts import AliveRecord, Phase, RankRecord, TimelineRecord, VramRecord
from pytest_llmmem.core.stacks import NO_STACK, Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All that is known of a job that has ended."""

    ending: Ending
    peak: Peak | None
    """``None`` when the worker died before the job began."""
    phases: tuple[Phase, ...]
    verdicts: tuple[Verdict, ...]
    seconds: float
    refusing_limit: str | None = None
    """The hard limit that refuses memory beyond ``max_ram``: ``"rlimit"`` or ``"job"``; ``None`` where none does, or did."""
    stack: Stack = NO_STACK
    """The stack at the crossing of a budget, or at death; without frames when there is none."""
    growth_stack: Stack = NO_STACK
    """The stack at which the job grew beyond what its baseline allows; without frames when it did not."""
    alive: tuple[AliveRecord, ...] = ()
    """Memory of torch's objects as a limit was crossed; empty when the worker could not report it."""
    children: ChildrenRecord | None = None
    """The processes that the test had started, when all together held most; ``None`` without any."""
    output: tuple[str, str] = ("", "")
    """The end of what was written to standard output and error by a worker that died."""
    notes: tuple[str, ...] = ()
    vram: tuple[VramRecord, ...] = ()
    """GPU memory of each device that was used, up to the worker's last boundary."""
    pinned_bytes: int | None = None
    """Page-locked host memory that torch held at most, up to the last boundary; ``None`` where that is unknown."""
    written_bytes: int | None = None
    """Bytes that the job wrote to storage; ``None`` where that is unknown."""
    timeline: TimelineRecord | None = None
    ranks: tuple[RankRecord, ...] = ()
    place: str | None = None
    """Position in a load at the crossing or at death: ``"shard 2 of 6, model.layers.11.mlp.down_proj.weight"``."""
