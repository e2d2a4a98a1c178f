"""Objects that hold memory, written by a worker beside its stack: one line, which survives any end of the worker."""

import json
from collections.abc import Sequence
from typing import Final

from pytest_llmmem.core.record_parts import AliveRecord

_MARK: Final = "Alive: "


def alive_line(alive: Sequence[AliveRecord]) -> str:
    """The line; nothing for nothing."""
    if not alive:
        return ""
    return f"{_MARK}{json.dumps([(each.name, each.count, each.bytes) for each in alive])}\n"


def parse_alive(dump: str) -> tuple[AliveRecord, ...]:
    """The first such line of a dump; empty without one, or where it was cut off."""
    line = next((line for line in dump.splitlines() if line.startswith(_MARK)), "")
    try:
        found = json.loads(line.removeprefix(_MARK)) if line else []
    except ValueError:
        found = []
    return tuple(AliveRecord(name=name, count=count, bytes=size) for name, count, size in found)
