"""The stacks that a worker writes while a job runs: as a limit is crossed, and at its death."""

from dataclasses import dataclass
from typing import Literal

from pytest_llmmem.core.outcomes import Ending
from pytest_llmmem.core.stacks import NO_STACK, Stack, parse_stack
from pytest_llmmem.workers.handle import Worker


@dataclass(slots=True)
class Dumps:
    """Has them written, and remembers where in the worker's file each begins."""

    worker: Worker
    breach: int | None = None
    """Of the crossing of a budget; ``None`` without one."""
    growth: int | None = None
    """Of the moment in which the baseline's allowance was crossed."""
    _death: int = 0
    """Of what is written later."""

    def take(self, crossing: Literal["breach", "growth"]) -> None:
        """Have the stack of a crossing written; the test goes on."""
        begins = self.worker.traces.stacks_size()
        self.worker.dump_stacks()
        self._death = self.worker.traces.stacks_size()
        if crossing == "breach":
            self.breach = begins
        else:
            self.growth = begins

    def take_last(self) -> None:
        """Have a stack written while there is time: of both its ends, where that of a death has the innermost frames alone."""
        self.worker.dump_stacks()

    def of_ending(self, ending: Ending, *, finished: bool) -> Stack:
        """Of the crossing, if that is why the test fails or was ended; else of its death, if that has left one."""
        crossing = self._at(self.breach)
        if finished or (ending.kind == "over_budget" and crossing.frames):
            return crossing
        death = parse_stack(self.worker.traces.stacks_text(self._death))
        return death if death.frames else crossing

    def of_growth(self) -> Stack:
        return self._at(self.growth)

    def _at(self, begins: int | None) -> Stack:
        """Also what came after its time: when the system call ended that the main thread was in."""
        return NO_STACK if begins is None else parse_stack(self.worker.traces.stacks_text(begins), at="the crossing")
