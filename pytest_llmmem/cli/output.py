"""Output of the commands: tables for people, or one JSON document.

Names of files and tensors come from others, so control sequences in them are never printed.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pytest_llmmem.core.printable import printable

_WIDE: Final = 200
"""Columns where no terminal gives the width: file names in a log must not be cut."""


def print_json(document: Mapping[str, Any]) -> None:
    """Print the whole output of a command, on the standard output."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    # JSON is UTF-8, and Windows writes into a pipe what its code page has
    if not text.replace("\n", "").isprintable() or str(sys.stdout.encoding).lower() != "utf-8":
        text = json.dumps(document, indent=1, allow_nan=False)
    sys.stdout.write(f"{text}\n")


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and what is known under them, one to a line."""
    rows = list(facts)
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        sys.stdout.write(f"{name:{width}}  {printable(text)}\n")


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table below an empty line; its first column is text, the others are numbers."""
    # imported here: --json and --help do not need it
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    sys.stdout.write("\n")
    Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, markup=False).print(table)


def print_findings(texts: Iterable[str]) -> None:
    """Print defects, one per line, below an empty line."""
    for number, text in enumerate(texts):
        sys.stdout.write(f"{'' if number else chr(10)}found: {printable(text)}\n")
