"""Paths of any length: Windows refuses 260 characters and more, unless a prefix or ``LongPathsEnabled`` lifts the limit."""

import ntpath
import os
import sys
from pathlib import Path
from typing import Final

_PREFIX: Final = "\\\\?\\"
_LONGEST_FOLDER: Final = 200
"""A folder's own length that leaves room for the names of its files below 260."""


def extended(absolute: str) -> str:
    r"""An absolute path of Windows; a long one with ``\\?\`` before it (Microsoft, *Maximum Path Length Limitation*)."""
    if len(absolute) <= _LONGEST_FOLDER or absolute.startswith(_PREFIX):
        return absolute
    # after the prefix, Windows takes `/`, `.` and `..` for names
    plain = ntpath.normpath(absolute)
    share = plain.removeprefix("\\\\")
    return _PREFIX + plain if share == plain else f"{_PREFIX}UNC\\{share}"


def reachable(path: Path) -> Path:
    """The path in a form that the system opens, however long it is. A short one is returned as it was given."""
    if sys.platform != "win32":
        return path
    absolute = os.path.abspath(path)
    long = extended(absolute)
    return path if long == absolute else Path(long)


def resolved(path: Path) -> Path:
    """The path without links, reachable. Links stay in it where the system cannot resolve them."""
    try:
        real = reachable(path).resolve()
    except OSError:  # Wine 8 cannot tell a name beyond 260 characters
        real = path.absolute()
    return reachable(real)
