"""Memory of the processes that a test has started, and the commands that they run."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from pytest_llmmem.core.sizes import format_size

FORKED: Final = "forked from the test"
"""Stands for the command of a child that runs no program of its own."""

_LONGEST: Final = 60
"""Characters of a command that are shown."""
_CALLED: Final = re.compile(r"from [\w.]*\.(?P<module>\w+) import (?P<function>\w+)")
"""The code by which ``multiprocessing`` starts its processes."""
_LEAST_BYTES: Final = 1_000_000
"""Less is not reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRecord:
    """One process that the test has started, by samples every 50 ms; pages that it shares with others are included."""

    command: str
    """Short form; ``"forked from the test"`` for one that runs no program of its own."""
    rank: int | None
    """Rank in a launch, from the environment that the process was started with; ``None`` where that names none."""
    peak_bytes: int
    """Unreclaimable, absolute."""
    peak_resident_bytes: int
    """Its high-water mark at its last sample, absolute."""

    def words(self) -> str:
        """``"83.0 MB  rank 0: python train.py"``."""
        rank = "" if self.rank is None else f"rank {self.rank}: "
        return f"{format_size(self.peak_bytes)}  {rank}{self.command}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildrenRecord:
    """A worker's children at the moment when all processes together held most."""

    bytes: int
    """Unreclaimable, beside the worker's own: pages that they share with it are not included."""
    count: int
    commands: tuple[str, ...]
    """Short forms of their commands, each once, the most frequent first; ``"forked from the test"`` without one."""
    forked: int = 0
    """The number of children that run no program of their own."""
    each: tuple[ChildRecord, ...] = ()
    """All that the test started, each at its own peak, the largest first; of more than 32, the first 32."""
    in_peak: bool = True
    """Whether the test's peak is of that moment. Else the worker alone held more at another one."""

    @property
    def is_told(self) -> bool:
        """Whether it is enough to be reported."""
        return self.bytes >= _LEAST_BYTES

    def words(self) -> str:
        """``"of it 104 MB in 4 children: `python -c … spawn_main`"``."""
        part = "of it" if self.in_peak else "beside it, at another moment,"
        count = f"{self.count} children" if self.count > 1 else "1 child"
        commands = ", ".join(each if each == FORKED else f"`{each}`" for each in self.commands)
        return f"{part} {format_size(self.bytes)} in {count}: {commands}"


def children_record(commands: Sequence[Sequence[str]], *, of_worker: Sequence[str], size: int) -> ChildrenRecord:
    """The record of children with these commands, which hold so many bytes together."""
    short = [command_words(command, of_worker=of_worker) for command in commands]
    return ChildrenRecord(
        bytes=max(0, size),
        count=len(short),
        commands=tuple(command for command, _ in Counter(short).most_common()),
        forked=short.count(FORKED),
    )


def command_words(command: Sequence[str], *, of_worker: Sequence[str] = ()) -> str:
    """A short form of a command: ``"python -c … spawn_main"``. A child with the command of the worker was forked from it."""
    if list(command) == list(of_worker):
        return FORKED
    program, *arguments = command
    program = PurePath(program).name
    if "-c" in arguments[:-1] and (called := _CALLED.search(arguments[arguments.index("-c") + 1])):
        function = called["module"] if called["function"] == "main" else called["function"]
        return f"{program} -c … {function}"
    text = " ".join((program, *arguments))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
