"""Line numbers of keys in a TOML file: ``tomllib`` gives values without their lines."""

import re
from collections.abc import Sequence
from typing import Final

_TABLE: Final = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_ASSIGNED: Final = re.compile(r"\s*([\w.'\"-]+)\s*=")


def line_of(text: str, key: Sequence[str], *, within: str | None = None) -> int:
    """The line of a key, by the tables that lead to it, or of a text in its value.

    Of a key that is not there, the line of the innermost of its tables that is.
    """
    table: tuple[str, ...] = ()
    place, depth = 1, 0
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            table = reached = _names(header[1])
        elif assigned := _ASSIGNED.match(line):
            reached = (*table, *_names(assigned[1]))
        else:
            reached = ()
        if len(reached) > depth and reached == tuple(key[: len(reached)]):
            place, depth = number, len(reached)
        elif reached and depth == len(key):
            break  # the next key: the searched item comes before it
        if depth == len(key) and within is not None and within in line:
            return number
    return place


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("'\"") for part in dotted.split("."))
