"""A block with a budget of its own, inside a test or a fixture."""

from typing import TYPE_CHECKING, Self

import pytest

from pytest_llmmem.core.errors import BudgetExceeded
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.plugin.state import CONNECTION

if TYPE_CHECKING:
    from pytest_llmmem.core.readings import Peak


class MemoryBudget:
    """A ``memory_budget`` block: what it may use, and, once it has ended, what it has used."""

    def __init__(self, config: pytest.Config, name: str, limit: object) -> None:
        __tracebackhide__ = True
        try:
            self._limit = None if limit is None else parse_limit(limit)
        except ValueError as error:
            msg = f"memory_budget {name!r}: {error}"
            raise ValueError(msg) from None
        self._config = config
        self.name = name
        self.peak: Peak | None = None
        """``None`` until the block has ended."""
        self.limit_bytes: int | None = None

    @property
    def peak_bytes(self) -> int | None:
        """Unreclaimable growth of the block, in bytes."""
        return self.peak.peak_bytes if self.peak else None

    def __enter__(self) -> Self:
        __tracebackhide__ = True
        connection = self._config.stash.get(CONNECTION, None)
        if connection is None:
            from pytest_llmmem.plugin.run.in_process import connection_of

            connection = connection_of(self._config)
        self._connection = connection
        connection.open(self.name, self._limit)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        __tracebackhide__ = True
        spent = self._connection.close()
        self.peak, self.limit_bytes = spent.peak, spent.limit_bytes
        if spent.breach and error is None:
            raise BudgetExceeded(spent.breach)
