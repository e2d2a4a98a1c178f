"""Progress of a sweep: a table that is redrawn on a terminal, a line for each cell elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pytest_llmmem.core.printable import excerpt, printable
from pytest_llmmem.core.sizes import format_size

if TYPE_CHECKING:
    from pytest_llmmem.core.records import CellRecord
    from pytest_llmmem.sweep.driver import State

_FAILURES: Final = 10
"""The latest are shown."""
_NAMES: Final = 4
"""Maximum number of job names that are shown for a node."""


def quiet(state: "State") -> None:
    """Show nothing."""


class Table:
    """The state of a sweep, redrawn at each change. If the screen is ``None``, lines are printed instead."""

    def __init__(self, cells: int, screen: Any) -> None:
        self._cells, self._screen = cells, screen
        self._done = 0
        self._failed: list[CellRecord] = []
        self._measuring = True

    def begin(self, *, done: int) -> None:
        """Begin the table: every claim is known, and ``done`` cells already have a result."""
        self._done, self._measuring = done, False
        if not self._screen:
            sys.stdout.write(f"{self._cells} cells, {done} with a result\n")

    def ended(self, cell: "CellRecord") -> None:
        self._done += 1
        if cell.outcome != "passed":
            self._failed.append(cell)
        if not self._screen:
            where = f" on {cell.node}, {cell.seconds:.1f} s" if cell.seconds is not None else ""
            line = f"[{self._done}/{self._cells}] {cell.outcome:7} {cell.name}{where}"
            sys.stdout.write(f"{printable(line)}{f': {excerpt(cell.sentence, limit=200)}' if cell.sentence else ''}\n")
            sys.stdout.flush()

    def changed(self, state: "State") -> None:
        if self._screen:
            self._screen.update(self._drawn(state))

    def _drawn(self, state: "State") -> Any:
        from rich.console import Group
        from rich.table import Table as Grid
        from rich.text import Text

        nodes = Grid(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        for name in ("node", "claimed", "of", "runs"):
            nodes.add_column(name, justify="right" if name in {"claimed", "of"} else "left")
        for node in state.nodes:
            here = [job for job, where in state.running.values() if where.id == node.id]
            names = [job.name.partition("/")[2] for job in here]
            more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            claimed = sum(job.memory_bytes for job in here)
            nodes.add_row(
                node.name, format_size(claimed), format_size(node.memory_bytes), ", ".join(names[:_NAMES]) + more
            )
        what = "measuring environments and models" if self._measuring else f"{self._done} of {self._cells} cells done"
        lines: list[Any] = [Text(f"{what}, {len(state.running)} run, {len(state.waiting)} wait", style="bold"), nodes]
        lines += [Text(f"✕ {cell.name}: {excerpt(cell.sentence)}", style="red") for cell in self._failed[-_FAILURES:]]
        return Group(*lines)


@contextmanager
def watching(cells: int, *, shown: bool) -> Iterator[Table | None]:
    """A table for as long as the sweep runs; ``None`` when nothing is to be shown."""
    if not shown:
        yield None
    elif not sys.stdout.isatty():
        yield Table(cells, None)
    else:
        from rich.live import Live

        with Live(refresh_per_second=4, transient=True) as screen:
            yield Table(cells, screen)
