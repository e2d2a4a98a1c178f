"""Text that others wrote, made safe to print in a sentence of ours."""

from collections.abc import Sequence


def printable(text: object) -> str:
    r"""The text with each character that does not print as an escape, like ``\x1b``, ``\n``, ``\u202e`` or ``\ud800``.

    So no terminal obeys it, no line is forged, and every encoding of Unicode can write it.
    """
    whole = str(text)
    if whole.isprintable():
        return whole
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in whole)


def excerpt(text: object, *, limit: int = 100) -> str:
    """The beginning of a text, printable; ``…`` stands for the rest of a longer one."""
    whole = str(text)
    return printable(whole) if len(whole) <= limit else f"{printable(whole[:limit])}…"


def some_of(names: Sequence[str]) -> str:
    """``"a, b, c and 5 more"``."""
    shown = ", ".join(map(excerpt, names[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
