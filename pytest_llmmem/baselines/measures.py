"""The numbers of a test that are compared, by name."""

from collections.abc import Sequence
from typing import Final

MEASURES: Final = ("unreclaimable", "resident", "file", "vram", "tensors")
DECIDING: Final = ("unreclaimable", "vram", "tensors")
"""Mapped files come and go with what else the machine does: they explain a change, and decide only when asked to."""


def parse_only(value: object) -> tuple[str, ...]:
    """The measures that decide, as a marker gives them. Raises ``ValueError`` with what is accepted."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not names or not all(name in MEASURES for name in names):
        msg = f"only={value!r} is not a list of measures: write some of {', '.join(MEASURES)}"
        raise ValueError(msg)
    return tuple(names)
