"""A block with a budget of its own: in a test, in a fixture of any scope, in a measured function, or in a script."""

from typing import Self

from pytest_llmmem.core.errors import BudgetExceeded
from pytest_llmmem.core.limits import Limit, parse_limit
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.measuring.connection import current_or_own
from pytest_llmmem.models.loading.residency import trim


def memory_budget(limit: object = None, *, keeps: object = None, name: str = "memory_budget") -> "MemoryBudget":
    """Give a block a budget of its own.

        with memory_budget("300MB", keeps="1MB", name="generate") as spent:
            model.generate(...)

    ``limit`` is of what the block needs at most, ``keeps`` of what it leaves when it ends; both are what ``max_ram`` takes,
    or ``None`` to measure only. The block is a phase in the report of its test.

    Raises ``ValueError`` for a limit that cannot be read, and ``BudgetExceeded`` at the end of a block that broke one.
    """
    __tracebackhide__ = True
    return MemoryBudget(name, _parsed(limit, name, "limit"), _parsed(keeps, name, "keeps"))


def _parsed(limit: object, name: str, what: str) -> Limit | None:
    __tracebackhide__ = True
    try:
        return None if limit is None else parse_limit(limit)
    except ValueError as error:
        msg = f"memory_budget {name!r}: {f'{what}: ' if what == 'keeps' else ''}{error}"
        raise ValueError(msg) from None


class MemoryBudget:
    """A block of ``memory_budget``: what it may use, and, once it has ended, what it has used."""

    def __init__(self, name: str, limit: Limit | None, keeps: Limit | None) -> None:
        self._limit, self._keeps = limit, keeps
        self.name = name
        self.peak: Peak | None = None
        """``None`` until the block has ended."""
        self.kept_bytes: int | None = None
        """Unreclaimable growth when the block ended, below zero when it has freed what was there before.

        With ``keeps`` garbage is collected before, and the C library gives back what it holds free.
        """
        self.limit_bytes: int | None = None

    @property
    def peak_bytes(self) -> int | None:
        """Unreclaimable growth of the block at most, in bytes."""
        return self.peak.peak_bytes if self.peak else None

    def __enter__(self) -> Self:
        __tracebackhide__ = True
        if self._keeps is not None:
            trim()
        self._connection = current_or_own()
        self._connection.open(self.name, self._limit, keeps=self._keeps)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        __tracebackhide__ = True
        if self._keeps is not None:
            trim()
        spent = self._connection.close()
        self.peak, self.kept_bytes, self.limit_bytes = spent.peak, spent.kept_bytes, spent.limit_bytes
        if spent.breach and error is None:
            raise BudgetExceeded(spent.breach)
