"""Copy on write in a forked worker: memory that it needs and that its resident set does not show."""

import os
from contextlib import closing
from typing import Final

from pytest_llmmem import probes
from pytest_llmmem.core.meter import NONE_COPIED, Copied
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.probes.host import Mappings

_getpid = os.getpid

_FEW_BYTES: Final = 6 * 2**20
"""Below this size, copies are not worth a walk through the page tables (1 to 2 ms)."""


class InheritedPages:
    """The pages that this process was forked with, some of which it writes to from now on."""

    def __init__(self, mappings: Mappings, reading: Reading, *, counts_all: bool = False) -> None:
        """``mappings`` are those of the process that this one was forked from, or its own if it was not forked.

        ``reading`` is the current one. Only ``counts_all`` counts copies of less than 6 MiB; else those are estimated.
        """
        self._pid = _getpid()
        self._mappings = mappings
        self._few_bytes = 0 if counts_all else _FEW_BYTES
        own = self._unshared_bytes() if counts_all else None
        # every fault since the fork copied a page or mapped one of a file: near enough, and no walk is needed
        self._own_bytes = probes.faulted_bytes() if own is None else own
        """Anonymous pages that are its own now, at the beginning."""
        self._last = NONE_COPIED
        self._counted = reading
        """The reading at the last count of the copies."""

    def copied(self, reading: Reading) -> Copied:
        """Pages copied since the beginning; ``reading`` is the current one.

        Half of what may have been copied since the last count is taken for copied, give or take the other half.
        """
        if self._mappings.pid == self._pid:
            return NONE_COPIED
        possible = self._possible_bytes(reading)
        if possible > self._few_bytes and (unshared := self._unshared_bytes()) is not None:
            copied = max(self._last.bytes, unshared - self._own_bytes)
            self._last, self._counted = Copied(copied, 0, counts=self._last.counts + 1), reading
            return self._last
        return Copied(self._last.bytes + possible // 2, possible // 2, counts=self._last.counts)

    def _possible_bytes(self, reading: Reading) -> int:
        """Page faults since the last count that brought no new page."""
        assert reading.faulted_bytes is not None
        assert self._counted.faulted_bytes is not None
        new = reading.anonymous_bytes - self._counted.anonymous_bytes
        return max(0, reading.faulted_bytes - self._counted.faulted_bytes - max(0, new))

    def _unshared_bytes(self) -> int | None:
        """All anonymous pages were shared at the fork, and those that are not any more were copied, or given back."""
        shared = probes.count_pages(self._pid, self._mappings.private, "shared")
        with closing(probes.open_memory(self._mappings.pid)) as memory:
            origin = memory.read()
        if shared is None or origin is None:
            return None
        return origin.anonymous_bytes - shared
