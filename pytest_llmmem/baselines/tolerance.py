"""Tolerated change of a peak: a share of it, a number of bytes, or both.

tolerance = part {"+" part}
part      = NUMBER "%" | SIZE        each at most once
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol

from pytest_llmmem.core.sizes import split_size, unit_of

DEFAULT: Final = "5% + 16MB"
"""A share alone flaps on small tests, bytes alone on large ones."""

_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_ACCEPTED: Final = "write a share, a size or both, like '5% + 16MB', '5%' or '16MB'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """A parsed tolerance; ``text`` is what the user wrote."""

    text: str
    percent: Decimal
    extra_bytes: int

    @property
    def unit(self) -> str | None:
        """The unit to report in, as the user wrote it."""
        return unit_of(self.text)

    def bytes(self, before_bytes: int) -> int:
        """Tolerated change of a number that was ``before_bytes``, in either direction."""
        return int(before_bytes * self.percent / 100) + self.extra_bytes

    def covers_error(self, measured: "Measured") -> bool:
        """Whether a change that counts cannot be hidden by the error of measuring."""
        return measured.error_bytes <= self.bytes(measured.peak_bytes)


class Measured(Protocol):
    """A peak and its error, of a run or in a baseline."""

    @property
    def peak_bytes(self) -> int: ...
    @property
    def error_bytes(self) -> int: ...


def parse_tolerance(value: object) -> Tolerance:
    """Parse a user's tolerance.

    Raises ``ValueError`` with the given value and the accepted ones.
    """
    if not isinstance(value, str):
        msg = f"{value!r} is not a tolerance: {_ACCEPTED}"
        raise ValueError(msg)  # noqa: TRY004 -- one error type for every bad tolerance, whatever is wrong with it
    percents: list[Decimal] = []
    sizes: list[int] = []
    for part in (part.strip() for part in value.split("+")):
        if match := _PERCENT.fullmatch(part):
            percents.append(Decimal(match[1]))
        else:
            sizes.append(_size(value, part))
    if len(percents) > 1 or len(sizes) > 1:
        msg = f"{value!r} is not a tolerance (two {'shares' if len(percents) > 1 else 'sizes'}): {_ACCEPTED}"
        raise ValueError(msg)
    return Tolerance(text=value.strip(), percent=sum(percents, Decimal(0)), extra_bytes=sum(sizes))


def _size(text: str, part: str) -> int:
    if not part or part.replace(".", "").isdecimal():
        what = f"{part!r} without a unit or '%'" if part else "nothing"
        msg = f"{text!r} is not a tolerance (cannot read {what}): {_ACCEPTED}"
        raise ValueError(msg)
    try:
        return round(split_size(part)[0])
    except ValueError:
        msg = f"{text!r} is not a tolerance (cannot read {part!r}): {_ACCEPTED}"
        raise ValueError(msg) from None
