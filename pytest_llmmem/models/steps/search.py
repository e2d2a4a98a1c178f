"""The largest batch, or length, whose peak stays within a limit."""

from collections.abc import Callable
from typing import Final

_TRIES: Final = 24
"""Predictions for one search: a guess by the slope is right after three or four."""


def largest_within(limit_bytes: int, peak_of: Callable[[int], int], *, most: int) -> int:
    """The largest number from 1 to ``most`` whose peak is within the limit; 0 when 1 is not.

    A peak grows with the number, in pieces that are straight: each guess follows the slope between the two nearest numbers
    that are known.
    """
    fits, fitting_bytes = 1, peak_of(1)
    if fitting_bytes > limit_bytes:
        return 0
    above, above_bytes = min(2, most), peak_of(min(2, most))
    for _ in range(_TRIES):
        if above_bytes <= limit_bytes:
            if above == most:
                return most
            slope = (above_bytes - fitting_bytes) / max(1, above - fits)
            fits, fitting_bytes = above, above_bytes
            reach = int((limit_bytes - fitting_bytes) / slope) if slope > 0 else most
            above = min(most, fits + max(1, reach + 1))
        elif above - fits <= 1:
            return fits
        else:
            share = (limit_bytes - fitting_bytes) / (above_bytes - fitting_bytes)
            between = min(above - 1, max(fits + 1, fits + int(share * (above - fits))))
            between_bytes = peak_of(between)
            if between_bytes <= limit_bytes:
                fits, fitting_bytes = between, between_bytes
            else:
                above, above_bytes = between, between_bytes
            continue
        above_bytes = peak_of(above)
    return fits
