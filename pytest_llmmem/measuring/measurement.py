"""A measured function: what it returned, how it ended, and what it needed."""

import pickle
from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar, cast

from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.errors import BudgetExceeded, LlmmemError, WorkerCrashed
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.core.record_parts import AliveRecord, Phase, VramRecord
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.measuring.call import Returned
from pytest_llmmem.reports import failure

T = TypeVar("T")


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Measurement(Generic[T]):
    """The result of ``measure``. All sizes are bytes."""

    name: str
    """The function's, or ``name=``."""
    peak: Peak
    """The most that the function needed, in all ways of counting."""
    output: str
    """Standard output and error of the function and of the processes that it started."""
    _measured: Measured
    _returned: Returned | None

    @property
    def value(self) -> T:
        """The return value of the function. Raises as ``check`` does, and ``LlmmemError`` when the value could not be sent."""
        __tracebackhide__ = True
        if self._returned is None:
            self.check()
            msg = f"{self.name}: there is no value: it {self.ending.kind.replace('_', ' ')}"
            raise LlmmemError(msg)
        if self._returned.why_lost:
            msg = (
                f"{self.name} returned {_a(self._returned.type)}, which cannot be sent from its worker "
                f"({self._returned.why_lost}): return something smaller that can be pickled"
            )
            raise LlmmemError(msg)
        return cast("T", pickle.loads(self._returned.pickled))  # noqa: S301 -- from our own worker

    def check(self) -> Self:
        """Return this measurement, or raise ``BudgetExceeded`` or ``WorkerCrashed`` with the sentence of a marker."""
        __tracebackhide__ = True
        if self._measured.ending.died:
            error = BudgetExceeded if self.ending.kind == "over_budget" else WorkerCrashed
            raise error(failure.death_sentence(self._measured))
        if broken := [verdict.sentence for verdict in self.budgets if not verdict.held]:
            raise BudgetExceeded("; ".join(broken))
        return self

    @property
    def ending(self) -> Ending:
        """The ending: ``ending.kind`` is ``"completed"``, ``"over_budget"``, ``"crashed"`` and so on.

        A function that returned, and broke a budget, is over budget, as a test would be.
        """
        ending = self._measured.ending
        if ending.died or all(verdict.held for verdict in self.budgets):
            return ending
        return replace(ending, kind="over_budget")

    @property
    def peak_bytes(self) -> int:
        """Unreclaimable growth at most."""
        return self.peak.peak_bytes

    @property
    def error_bytes(self) -> int:
        """Error of ``peak_bytes``."""
        return self.peak.error_bytes

    @property
    def peak_resident_bytes(self) -> int:
        """Growth of the resident set at most."""
        return self.peak.peak_resident_bytes

    @property
    def kept_bytes(self) -> int | None:
        """Unreclaimable growth when the function had returned, its value included; ``None`` when it did not return.

        Garbage is collected before, and the C library gives back what it holds free.
        """
        return self._returned.kept_bytes if self._returned else None

    @property
    def vram(self) -> tuple[VramRecord, ...]:
        """Memory of each GPU that was used."""
        return self._measured.vram

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The blocks of ``memory_budget`` in the function, in order."""
        return self._measured.phases

    @property
    def budgets(self) -> tuple[Verdict, ...]:
        """Each budget beside what was used."""
        return self._measured.verdicts

    @property
    def seconds(self) -> float:
        """Time from the first boundary to the worker's end."""
        return self._measured.seconds

    @property
    def stack(self) -> tuple[str, ...]:
        """The stack where a budget was crossed or the worker died: ``"train.py:12 in step"``, the user's own frames first."""
        return tuple(frame.shown("") for frame in self._measured.stack.users_first)

    @property
    def alive(self) -> tuple[AliveRecord, ...]:
        """Memory of torch's objects as a budget was crossed, the largest first."""
        return self._measured.alive

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the reader, although nothing failed."""
        return self._measured.notes

    def __repr__(self) -> str:
        used = f"{format_size(self.peak_bytes)} unreclaimable (± {format_size(self.error_bytes)})"
        return f"<Measurement {self.name}: {used} in {self.seconds:.1f} s, {self.ending.kind}>"


def _a(type_: str) -> str:
    return f"an {type_}" if type_[:1].lower() in "aeiou" else f"a {type_}"
