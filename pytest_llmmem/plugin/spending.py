"""A block with a budget of its own, inside a test or a fixture."""

from typing import TYPE_CHECKING, Self

from pytest_llmmem.core.budgets import parse_limit
from pytest_llmmem.core.errors import BudgetExceeded

if TYPE_CHECKING:
    from pytest_llmmem.core.readings import Peak
    from pytest_llmmem.workers.child import Voice


class Spending:
    """A ``memory_budget`` block: what it may use, and, once it has ended, what it has used.

    ``peak`` is ``None`` until then, and where nothing is measured (``--llm-isolate=none``).
    """

    def __init__(self, voice: "Voice | None", name: str, limit: object) -> None:
        __tracebackhide__ = True
        try:
            self._limit = None if limit is None else parse_limit(limit)
        except ValueError as error:
            msg = f"memory_budget {name!r}: {error}"
            raise ValueError(msg) from None
        self._voice = voice
        self.name = name
        self.peak: Peak | None = None
        self.limit_bytes: int | None = None

    @property
    def peak_bytes(self) -> int | None:
        """Unreclaimable growth of the block, in bytes."""
        return self.peak.peak_bytes if self.peak else None

    def __enter__(self) -> Self:
        __tracebackhide__ = True
        if self._voice is not None:
            self._voice.open(self.name, self._limit)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        __tracebackhide__ = True
        if self._voice is None:
            return
        spent = self._voice.close()
        self.peak, self.limit_bytes = spent.peak, spent.limit_bytes
        if spent.breach and error is None:
            raise BudgetExceeded(spent.breach)
