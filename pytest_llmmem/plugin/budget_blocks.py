"""A block with a budget of its own, inside a test or a fixture."""

from typing import TYPE_CHECKING, Self

import pytest

from pytest_llmmem.core.budgets import parse_limit
from pytest_llmmem.core.errors import BudgetExceeded
from pytest_llmmem.plugin.state import VOICE

if TYPE_CHECKING:
    from pytest_llmmem.core.readings import Peak


class Spending:
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
        voice = self._config.stash.get(VOICE, None)
        if voice is None:
            from pytest_llmmem.plugin.run.in_process import voice_of

            voice = voice_of(self._config)
        self._voice = voice
        voice.open(self.name, self._limit)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        __tracebackhide__ = True
        spent = self._voice.close()
        self.peak, self.limit_bytes = spent.peak, spent.limit_bytes
        if spent.breach and error is None:
            raise BudgetExceeded(spent.breach)
