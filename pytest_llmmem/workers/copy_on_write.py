"""Copy on write in a forked worker: memory that it needs and that its resident set does not show."""

import os
from contextlib import closing
from typing import Final

from pytest_llmmem import probes
from pytest_llmmem.core.meter import NONE_COPIED, Copied
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.probes.host import Mappings

_getpid, _getppid = os.getpid, os.getppid

_FEW_BYTES: Final = 6 * 2**20
"""Below this size, copies are not worth a walk through the page tables (1 to 2 ms)."""


class InheritedPages:
    """The pages that this process was forked with, some of which it has written to since."""

    def __init__(self, mappings: Mappings, reading: Reading, *, few_bytes: int = _FEW_BYTES) -> None:
        """``mappings`` are those of the process that this one was forked from, or its own if it was not forked.

        Up to ``few_bytes`` of copies are estimated and not counted.
        """
        self._few_bytes = few_bytes
        # every fault since the fork copied a page or mapped one of a file: near enough, and no walk is needed
        self.private_bytes = probes.faulted_bytes()
        """Anonymous pages that were its own from the beginning."""
        self._pid, self._origin_pid = _getpid(), _getppid()
        self._mappings = mappings
        self._last = Copied(0, 0, counts=0)
        self._counted = reading
        """The reading at the last count of the copies."""

    def copied(self, reading: Reading) -> Copied:
        """Pages copied since the beginning; ``reading`` is the current one.

        Half of what may have been copied since the last count is taken for copied, give or take the other half.
        """
        if self._mappings.pid == self._pid:
            return NONE_COPIED
        possible = self._possible_bytes(reading)
        if possible > self._few_bytes and (copied := self._count_bytes()) is not None:
            self._last = Copied(max(self._last.bytes, copied), 0, counts=self._last.counts + 1)
            self._counted = reading
            return self._last
        return Copied(self._last.bytes + possible // 2, possible // 2, counts=self._last.counts)

    def _possible_bytes(self, reading: Reading) -> int:
        """Page faults since the last count that brought no new page."""
        assert reading.faulted_bytes is not None
        assert self._counted.faulted_bytes is not None
        new = reading.anonymous_bytes - self._counted.anonymous_bytes
        return max(0, reading.faulted_bytes - self._counted.faulted_bytes - max(0, new))

    def _count_bytes(self) -> int | None:
        """All anonymous pages were shared at the fork, and those that are not any more were copied, or given back."""
        shared = probes.count_pages(self._pid, self._mappings.private, "shared")
        with closing(probes.open_memory(self._origin_pid)) as memory:
            origin = memory.read()
        if shared is None or origin is None:
            return None
        return origin.anonymous_bytes - shared - self.private_bytes
