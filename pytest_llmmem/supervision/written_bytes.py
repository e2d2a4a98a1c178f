"""Bytes that a job writes to storage, from totals that began before it."""

from dataclasses import dataclass


@dataclass(slots=True)
class WrittenBytes:
    """The growth of a worker's total: that of its children is in it only while they live, so the highest counts."""

    _before: int | None = None
    """The first total that was known."""
    _grown: int = 0

    def add(self, total_bytes: int | None) -> None:
        """Take in what the worker has written since it began; ``None`` when that is unknown."""
        if total_bytes is None:
            return
        if self._before is None:
            self._before = total_bytes
        self._grown = max(self._grown, total_bytes - self._before)

    @property
    def bytes(self) -> int | None:
        """Bytes that the job wrote; ``None`` where that is unknown."""
        return None if self._before is None else self._grown
