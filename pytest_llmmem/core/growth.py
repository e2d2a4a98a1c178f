"""Memory that each further call of a function leaves behind: the mean and its error."""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pytest_llmmem.core.sizes import format_size

_STANDARD_ERRORS: Final = 2
_UNSEEN_BYTES: Final = 64 * 1024
"""Memory that all calls together may leave in pages that exist already. It cannot be measured."""


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class MemoryGrowth:
    """Memory that each call of a function left, in bytes of unreclaimable memory."""

    held_bytes: tuple[int, ...]
    """Memory held after the warm-up and after each later call, above the first value."""
    vram_held_bytes: tuple[int, ...] = ()
    """The same of all tensors on GPUs; empty where no GPU is used."""

    @property
    def per_call_bytes(self) -> int:
        """The mean of what the calls left; below zero when they freed what was there before."""
        return _per_call(self.held_bytes)

    @property
    def error_bytes(self) -> int:
        """Error of the mean: two standard errors, and memory that may lie in pages that existed before.

        Growth is not significant if the error is larger than the mean.
        """
        return _error(self.held_bytes)

    @property
    def vram_per_call_bytes(self) -> int | None:
        """The same of GPUs; ``None`` where no GPU is used."""
        return _per_call(self.vram_held_bytes) if self.vram_held_bytes else None

    @property
    def repeat(self) -> int:
        """The number of calls that were counted."""
        return len(self.held_bytes) - 1

    def __repr__(self) -> str:
        grew, error = format_size(abs(self.per_call_bytes)), format_size(self.error_bytes)
        return (
            f"<MemoryGrowth {'-' if self.per_call_bytes < 0 else ''}{grew} (± {error}) a call, in {self.repeat} calls>"
        )


def check_calls(repeat: object, warmup: object) -> None:
    """Check the numbers of calls. Raises ``ValueError`` if they are too small for a result."""
    if not isinstance(repeat, int) or repeat < 2:
        msg = f"repeat is {repeat!r}: write a number of calls, 2 or more"
        raise ValueError(msg)
    if not isinstance(warmup, int) or warmup < 0:
        msg = f"warmup is {warmup!r}: write a number of calls, 0 or more"
        raise ValueError(msg)


def _per_call(held: Sequence[int]) -> int:
    return round((held[-1] - held[0]) / (len(held) - 1))


def _error(held: Sequence[int]) -> int:
    left = [after - before for before, after in itertools.pairwise(held)]
    return math.ceil(_STANDARD_ERRORS * statistics.stdev(left) / math.sqrt(len(left)) + _UNSEEN_BYTES / len(left))
