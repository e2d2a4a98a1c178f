"""A line under the running test, for a person who waits for a long load at a terminal."""

from collections.abc import Callable
from typing import Final

import pytest

from pytest_llmmem import probes
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint

_FROM_S: Final = 2.0
"""Shorter tests show nothing."""
_EVERY_S: Final = 0.5


class Progress:
    """``weights 3/8 shards · 4.1 of 8.0 GB · 12 s``, rewritten in place and erased when the test ends."""

    def __init__(self, config: pytest.Config, checkpoint: Checkpoint | None) -> None:
        self._writer = config.get_terminal_writer()
        self._checkpoint = checkpoint
        self._seen: set[str] = set()
        self._next_s = _FROM_S
        self._column: int | None = None

    @classmethod
    def of(
        cls, config: pytest.Config, item: pytest.Item, find: Callable[[pytest.Item], Checkpoint | None]
    ) -> "Progress":
        """A line for this item; without a terminal, a line that is never shown."""
        talks = config.pluginmanager.has_plugin("terminalreporter") and not hasattr(config, "workerinput")
        if not talks or not config.get_terminal_writer().hasmarkup or config.get_verbosity() < 0:
            return NoProgress()
        return cls(config, find(item))

    def update(self, pid: int, seconds: float, held_bytes: int) -> None:
        """Show where the test is, every half second."""
        if seconds < self._next_s:
            return
        self._next_s = seconds + _EVERY_S
        if self._column is None:
            self._column = self._writer.width_of_current_line
            self._writer.line()
        self._writer.write(f"\r\x1b[K{self._text(pid, seconds, held_bytes)}", flush=True)

    def erase(self) -> None:
        """Leave the terminal as it was."""
        if self._column is not None:
            self._writer.write(f"\r\x1b[K\x1b[A\x1b[{self._column + 1}G", flush=True)
            self._column = None

    def _text(self, pid: int, seconds: float, held_bytes: int) -> str:
        if self._checkpoint is None:
            return f"{format_size(held_bytes)} · {seconds:.0f} s"
        names = {shard.path.name for shard in self._checkpoint.shards}
        self._seen |= probes.open_files(pid) & names
        weights = self._checkpoint.weights_bytes
        held = format_size(min(held_bytes, weights), "GB").removesuffix(" GB")
        return (
            f"weights {len(self._seen)}/{len(names)} shards · {held} of {format_size(weights, 'GB')} · {seconds:.0f} s"
        )


class NoProgress(Progress):
    """Progress without a terminal: nothing is shown."""

    def __init__(self) -> None:
        pass

    def update(self, pid: int, seconds: float, held_bytes: int) -> None:
        pass

    def erase(self) -> None:
        pass
