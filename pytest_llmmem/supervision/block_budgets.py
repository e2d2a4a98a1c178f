"""The limits of ``memory_budget`` blocks: known when a block opens, judged when it closes."""

from dataclasses import dataclass, field
from typing import Literal

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.limits import Limit
from pytest_llmmem.core.meter import Window
from pytest_llmmem.core.terms import Terms
from pytest_llmmem.workers.messages import Accepted, Opening


@dataclass(slots=True)
class BlockBudgets:
    """The limits of the blocks that are open."""

    terms: Terms
    """Terms of the limits."""
    rank: int | None
    """Rank of the worker, if several workers run the job."""
    _peaks: dict[int, Budget] = field(default_factory=dict)
    """Limits of what the blocks use, by the identity of their window."""
    _keeps: dict[int, Budget] = field(default_factory=dict)
    """Limits of what they leave."""

    def open(self, window: Window, opening: Opening) -> list[Accepted]:
        """Work out the limits of a block; returns the answer that it waits for, if it has a limit."""
        if opening.limit is None and opening.keeps is None:
            return []
        try:
            if opening.limit is not None:
                self._peaks[id(window)] = self._budget("memory_budget", opening.limit, opening.name)
            if opening.keeps is not None:
                self._keeps[id(window)] = self._budget("keeps", opening.keeps, opening.name)
        except ValueError as error:
            return [Accepted(f"memory_budget {opening.name!r}: {error}")]
        return [Accepted(None)]

    def of_peak(self, window: Window) -> Budget | None:
        """The limit of what a block uses; ``None`` where the window has none."""
        return self._peaks.get(id(window))

    def close(self, window: Window) -> tuple[Budget | None, Budget | None]:
        """Forget a block; returns the limits of what it used and of what it leaves."""
        return self._peaks.pop(id(window), None), self._keeps.pop(id(window), None)

    def _budget(self, kind: Literal["memory_budget", "keeps"], limit: Limit, name: str) -> Budget:
        """Raises ``ValueError`` where the limit cannot be worked out."""
        return Budget(kind=kind, limit=limit, limit_bytes=self.terms.bytes(limit), name=name, rank=self.rank)
