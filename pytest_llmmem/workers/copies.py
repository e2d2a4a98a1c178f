"""Copy on write in a forked worker: memory that it needs and that its resident set does not show."""

import os
from typing import Final

from pytest_llmmem import probes
from pytest_llmmem.core.meter import NONE_COPIED, Copied
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.probes.host import Mappings

_FEW_BYTES: Final = 2 * 2**20
"""Up to so many bytes of copies are not worth a walk through the page tables (about 1 ms)."""


class InheritedPages:
    """The pages that this process was forked with, some of which it has written to since."""

    def __init__(self, mappings: Mappings) -> None:
        """``mappings`` are those of the process that this one was forked from, or its own if it was not forked."""
        # every fault since the fork copied a page or mapped one of a file: near enough, and no walk is needed
        self.private_bytes = probes.faulted_bytes()
        """Anonymous pages that were its own from the beginning."""
        self._is_forked = mappings.pid != os.getpid()
        self._pages = probes.Pages(os.getpid(), mappings.writable, "shared")
        self._counted: Reading | None = None
        """When the pages that are still shared were last counted."""
        self._shared_bytes: int | None = None
        """At the first count."""
        self._copied_bytes = 0

    def copied(self, reading: Reading) -> Copied:
        """What was copied since this was asked first; ``reading`` is of now.

        Half of what may have been copied since the last count is taken for copied, give or take the other half.
        """
        if not self._is_forked:
            return NONE_COPIED
        possible = self._possible_bytes(reading)
        if (possible is None or possible > _FEW_BYTES) and self._count(reading):
            possible = 0
        half = (possible or 0) // 2
        return Copied(self._copied_bytes + half, half)

    def _possible_bytes(self, reading: Reading) -> int | None:
        """What page faults have brought since the last count and is no new page; ``None`` where that is unknown."""
        if self._counted is None or self._counted.faulted_bytes is None or reading.faulted_bytes is None:
            return None
        new = reading.anonymous_bytes - self._counted.anonymous_bytes
        return max(0, reading.faulted_bytes - self._counted.faulted_bytes - max(0, new))

    def _count(self, reading: Reading) -> bool:
        """Whether the kernel tells which pages are shared."""
        shared = self._pages.count_bytes()
        if self._counted is None:
            self._counted, self._shared_bytes = reading, shared
        if shared is None or self._shared_bytes is None:
            return False
        self._counted = reading
        self._copied_bytes = max(self._copied_bytes, self._shared_bytes - shared)
        return True
