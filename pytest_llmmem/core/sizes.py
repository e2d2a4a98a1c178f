"""Memory sizes, and seconds, as people write them: ``8GB`` is 8 * 10**9 bytes, ``7.5 GiB`` is 7.5 * 2**30."""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final, cast

UNITS: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
"""Bytes per unit, as accelerate and the Hub's ``max_shard_size`` read them. Case is ignored when parsing."""

_BY_FOLDED_NAME: Final = {name.casefold(): name for name in UNITS}
_SIZE: Final = re.compile(r"(?P<number>\d+(?:_\d+)*(?:\.\d+)?|\.\d+)\s*(?P<unit>[A-Za-z]*)")
_UNIT: Final = re.compile(rf"(?<=[\d\s.])(?:{'|'.join(unit for unit in UNITS if unit != 'B')})\b", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of a size such as ``"8GB"``, ``"7.5 GiB"`` or ``"512"`` (bytes).

    Raises ``ValueError`` for anything else, with what is accepted.
    """
    return round(split_size(text)[0])


def split_size(text: str) -> tuple[Decimal, str]:
    """The exact bytes of a size and the unit that it was written in."""
    match = _SIZE.fullmatch(text.strip())
    unit = _BY_FOLDED_NAME.get(match["unit"].casefold() or "b") if match else None
    if match is None or unit is None:
        msg = f"{text!r} is not a memory size: write a number and a unit, like '8GB' or '7.5GiB'"
        raise ValueError(msg)
    return Decimal(match["number"]) * UNITS[unit], unit


def is_size(text: str) -> bool:
    """Whether a text is one size, and nothing that has to be worked out."""
    try:
        split_size(text)
    except ValueError:
        return False
    return True


def unit_of(text: str) -> str | None:
    """The first unit that appears in a text, such as a limit; ``None`` when it names none, or bytes."""
    match = _UNIT.search(text)
    return _BY_FOLDED_NAME[match[0].casefold()] if match else None


def format_size(size_bytes: float, unit: str | None = None) -> str:
    """A size for people: three significant digits or so, in ``unit``, or in the decimal unit that fits.

    >>> format_size(2_660_000_000), format_size(1536 * 2**20, "GiB")
    ('2.66 GB', '1.50 GiB')
    """
    unit = unit or _fitting_unit(size_bytes)
    return f"{size_bytes / UNITS[unit]:.{_decimals(size_bytes, unit)}f} {unit}"


def format_beside(limit_bytes: int, used_bytes: int, unit: str | None = None) -> tuple[str, str, str]:
    """Two sizes and how far they are apart, so that a reader can compare and subtract what is printed.

    All are in one unit and have equally many decimals: as many as ``format_size`` gives either, and more where the
    difference would have less than two digits.

    >>> format_beside(2_000_000_000, 2_002_900_000, "GB")
    ('2.0000 GB', '2.0029 GB', '0.0029 GB')
    """
    unit = unit or _fitting_unit(max(limit_bytes, used_bytes))
    unit_bytes = UNITS[unit]
    decimals = max((_decimals(size, unit) for size in (limit_bytes, used_bytes) if size), default=0)
    apart_bytes = abs(used_bytes - limit_bytes)
    while unit != "B" and 0 < apart_bytes * 10**decimals < 10 * unit_bytes:
        decimals += 1
    limit, used = (round(Fraction(size * 10**decimals, unit_bytes)) for size in (limit_bytes, used_bytes))

    def shown(number: int) -> str:
        return f"{Decimal(number).scaleb(-decimals):.{decimals}f} {unit}"

    return shown(limit), shown(used), shown(abs(used - limit))


def _fitting_unit(size_bytes: float) -> str:
    """The decimal unit in which a size has one to three digits before the point."""
    return next((name for name in ("TB", "GB", "MB", "kB") if abs(size_bytes) >= 0.9995 * UNITS[name]), "B")


def _decimals(size_bytes: float, unit: str) -> int:
    """The number of decimals that makes three significant digits or so."""
    value = abs(size_bytes / UNITS[unit])
    return 0 if unit == "B" or value >= 100 else 1 if value >= 10 else 2


def parse_seconds(value: object) -> float:
    """A positive number of seconds. Raises ``ValueError`` with what is accepted."""
    try:
        seconds = float(cast("str", value))
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf") or isinstance(value, bool):
        msg = f"{value!r} is not a timeout: write seconds above zero, like 30 or 0.5"
        raise ValueError(msg)
    return seconds
