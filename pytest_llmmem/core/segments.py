"""The peaks of all samples between two resets of the kernel's high-water mark."""

from dataclasses import dataclass, field
from typing import Final

from pytest_llmmem.core.readings import LifetimeMarks, Reading


@dataclass(frozen=True, slots=True)
class Bounds:
    """A peak in bytes: the reported number, its certain part, and the highest possible value."""

    reported: int
    certain: int
    possible: int

    @property
    def excess(self) -> int:
        """Highest possible excess of the reported number."""
        return self.reported - self.certain

    @property
    def error(self) -> int:
        """Highest possible error in either direction."""
        return max(self.excess, self.possible - self.reported)

    def joined(self, other: "Bounds") -> "Bounds":
        """Combine the bounds of two stretches."""
        return Bounds(
            max(self.reported, other.reported), max(self.certain, other.certain), max(self.possible, other.possible)
        )

    def plus(self, more: int) -> "Bounds":
        return Bounds(self.reported + more, self.certain + more, self.possible + more)


NOTHING_SEEN: Final = Bounds(0, 0, 0)


@dataclass(slots=True)
class Segment:
    """Samples between two resets of the high-water mark; absolute, and the maximum of all samples unless noted."""

    first: Reading
    """Sample at the beginning of the segment."""
    mark_bytes: int = 0
    resident_bytes: int = 0
    unreclaimable_bytes: int = 0
    closed_bytes: int = 0
    """Unreclaimable memory, rounded up: it includes bytes that the high-water mark shows and no sample has seen."""
    all_files_bytes: int = 0
    beside_mark_bytes: int = 0
    """Unreclaimable and not resident, so the high-water mark excludes it."""
    library_bytes: int = 0
    """As of the last sample: these pages are hardly ever dropped."""
    _allowed_bytes: int | None = 0
    """The unreclaimable peak that the page faults until now allow; ``None`` where they are not known."""
    _lifetime: LifetimeMarks | None = None
    """As of the last sample."""
    _full: Reading = field(init=False)
    """The last sample that read the high-water mark and the page faults."""
    _faulted_before_bytes: int | None = field(init=False)
    """Page faults at the previous sample of that kind."""

    def __post_init__(self) -> None:
        self._full, self._faulted_before_bytes = self.first, self.first.faulted_bytes
        self.add(self.first)

    def add(self, reading: Reading) -> None:
        resident_bytes, unreclaimable_bytes = reading.resident_bytes, reading.unreclaimable_bytes
        self.resident_bytes = max(self.resident_bytes, resident_bytes)
        self.unreclaimable_bytes = max(self.unreclaimable_bytes, unreclaimable_bytes)
        self.all_files_bytes = max(self.all_files_bytes, reading.all_files_bytes)
        self.beside_mark_bytes = max(self.beside_mark_bytes, reading.swap_bytes + reading.huge_bytes)
        self.library_bytes = reading.library_bytes
        self.mark_bytes = max(self.mark_bytes, resident_bytes, reading.mark_bytes or 0)
        if reading.mark_bytes is not None:
            self._allow(reading)
        if reading.lifetime is not None:
            self.add_lifetime(reading.lifetime)
        self._close()

    def add_lifetime(self, marks: LifetimeMarks) -> None:
        """Add high-water marks that are never reset: one that has risen since the segment began is the segment's peak."""
        self._lifetime, before = marks, self.first.lifetime or LifetimeMarks()
        self.mark_bytes = max(self.mark_bytes, _risen(marks.resident_bytes, before.resident_bytes))
        risen = _risen(marks.unreclaimable_bytes, before.unreclaimable_bytes)
        self.unreclaimable_bytes = max(self.unreclaimable_bytes, risen)
        self._close()

    def add_mark(self, mark_bytes: int) -> None:
        """Add a high-water mark without a sample: the page faults before it are unknown."""
        if mark_bytes > self.mark_bytes:
            self.mark_bytes, self._allowed_bytes = mark_bytes, None
            self._close()

    def _allow(self, reading: Reading) -> None:
        """Limit the growth of unreclaimable memory between two samples to the page faults between them.

        A sample reads its page faults after its memory, so the count of the sample before the first is subtracted.
        """
        faulted, before = reading.faulted_bytes, self._faulted_before_bytes
        if faulted is None or before is None or self._allowed_bytes is None:
            self._allowed_bytes = None
            return
        self._allowed_bytes = max(self._allowed_bytes, self._full.unreclaimable_bytes + faulted - before)
        self._full, self._faulted_before_bytes = reading, self._full.faulted_bytes

    def _close(self) -> None:
        """Count memory that no sample explains as unreclaimable, up to the limit that the page faults set."""
        highest = self.unreclaimable_bytes
        if self._lifetime is None:
            highest += self.mark_bytes - self.resident_bytes
        if self._allowed_bytes is not None:
            highest = min(highest, self._allowed_bytes)
        self.closed_bytes = max(self.closed_bytes, self.unreclaimable_bytes, highest)

    @property
    def unreclaimable(self) -> Bounds:
        mark = self._lifetime.unreclaimable_bytes if self._lifetime else None
        return Bounds(self.closed_bytes, self.unreclaimable_bytes, max(self.closed_bytes, mark or 0))

    @property
    def _lowest_bytes(self) -> int:
        """The high-water mark without library pages, as if all of them had been resident before it rose."""
        return self.mark_bytes - max(self.first.library_bytes, self.library_bytes)

    @property
    def file_bytes(self) -> int:
        """The test's own mapped files, as if all library pages had been resident before their peak."""
        seen = max(self.first.file_bytes, self.all_files_bytes - self.library_bytes)
        return max(seen, self._lowest_bytes - self.closed_bytes)

    @property
    def resident(self) -> Bounds:
        """Unreclaimable memory and the test's own files: the sum of both peaks, limited by the high-water mark.

        The high-water mark includes the libraries' pages: at least as many as there were when the segment began.
        """
        lowest = self._lowest_bytes
        highest = self.mark_bytes - min(self.first.library_bytes, self.library_bytes) + self.beside_mark_bytes
        reported = max(lowest, min(self.closed_bytes + self.file_bytes, highest))
        if self._lifetime is not None:
            return Bounds(self.mark_bytes, self.mark_bytes, max(self.mark_bytes, self._lifetime.resident_bytes or 0))
        return Bounds(reported, min(reported, max(lowest, self.unreclaimable_bytes)), reported)


def _risen(mark_bytes: int | None, before_bytes: int | None) -> int:
    """The high-water mark, if it has risen; else 0."""
    return mark_bytes if mark_bytes is not None and mark_bytes > (before_bytes or 0) else 0
