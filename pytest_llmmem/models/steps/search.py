"""The largest batch, or length, whose peak stays within a limit."""

from collections.abc import Callable


def largest_within(limit_bytes: int, peak_of: Callable[[int], int], *, most: int) -> int:
    """The largest number from 1 to ``most`` whose peak is within the limit; 0 when 1 is not.

    The peak is a piecewise linear function of the number. A guess by the slope is exact where one piece reaches from a number
    that fits to the limit. Elsewhere such guesses converge slowly, so every second guess halves the remaining range.
    """
    fits, fitting_bytes = 1, peak_of(1)
    if fitting_bytes > limit_bytes:
        return 0
    step = 1
    while fits < most:
        above = min(most, fits + step)
        above_bytes = peak_of(above)
        if above_bytes > limit_bytes:
            break
        slope = (above_bytes - fitting_bytes) / (above - fits)
        fits, fitting_bytes = above, above_bytes
        reach = int((limit_bytes - fitting_bytes) / slope) if slope > 0 else most
        step = max(2 * step, reach + 1)
    else:
        return fits
    follows_slope = True
    while above - fits > 1:
        share = (limit_bytes - fitting_bytes) / (above_bytes - fitting_bytes) if follows_slope else 0.5
        between = min(above - 1, max(fits + 1, fits + int(share * (above - fits))))
        between_bytes = peak_of(between)
        if between_bytes <= limit_bytes:
            fits, fitting_bytes = between, between_bytes
        else:
            above, above_bytes = between, between_bytes
        follows_slope = not follows_slope
    return fits
