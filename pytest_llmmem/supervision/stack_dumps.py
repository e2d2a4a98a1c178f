"""The stacks that a worker writes while a job runs: as a limit is crossed, and at its death."""

from dataclasses import dataclass
from typing import Literal

from pytest_llmmem.core.alive import parse_alive
from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.record_parts import AliveRecord
from pytest_llmmem.core.stacks import NO_STACK, Stack, parse_stack, without_handled
from pytest_llmmem.workers.worker import Worker


@dataclass(slots=True)
class StackDumps:
    """Asks for stacks, and remembers where in the worker's file each begins."""

    worker: Worker
    breach: int | None = None
    """The offset of the stack at which a budget was crossed; ``None`` when none was."""
    growth: int | None = None
    """The offset of the stack at which the baseline's allowance was crossed; ``None`` when it was not."""
    _death: int = 0
    """The offset of what is written after the last crossing."""
    _has_last: bool = False
    """Whether both ends were asked for."""

    def take(self, crossing: Literal["breach", "growth"]) -> None:
        """Ask for the stack of a crossing; the test goes on."""
        begins = self.worker.files.stacks_size()
        self.worker.dump_stacks()
        self._death = self.worker.files.stacks_size()
        if crossing == "breach":
            self.breach = begins
        else:
            self.growth = begins

    def take_last(self) -> None:
        """Ask, once, for both ends of the stack before the worker is ended: a dump at death has the innermost frames alone."""
        if not self._has_last:
            self._has_last = True
            self.worker.dump_stacks(both_ends=True)

    def of_ending(self, ending: Ending, *, finished: bool) -> Stack:
        """The stack of the crossing, if the test fails or was ended for it; else the stack of its death, if there is one."""
        crossing = self._at(self.breach)
        if finished or (ending.kind == "over_budget" and crossing.frames):
            return crossing
        exit_ = self.worker.exit
        dump = without_handled(self.worker.files.stacks_text(self._death), exit_.signal_number if exit_ else None)
        death = parse_stack(dump, crashed=ending.kind == "crashed")
        return death if death.frames else crossing

    def of_growth(self) -> Stack:
        """The stack at which the baseline's allowance was crossed."""
        return self._at(self.growth)

    def alive(self) -> tuple[AliveRecord, ...]:
        """Objects that were alive as a budget or the baseline's allowance was crossed, listed as soon as Python ran again."""
        begins = self.growth if self.breach is None else self.breach
        return () if begins is None else parse_alive(self.worker.files.stacks_text(begins))

    def _at(self, begins: int | None) -> Stack:
        # read at the end of the test: a part may have come late, when a call in C returned
        return NO_STACK if begins is None else parse_stack(self.worker.files.stacks_text(begins), at="the crossing")
