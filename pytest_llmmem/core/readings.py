"""One look at a process's memory, and what many looks and the kernel's mark together say about its peak."""

import dataclasses
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A process's memory at one instant, in bytes.

    Where a platform does not tell anonymous from file-backed pages, all that is resident counts as anonymous: the
    safe side for a budget.
    """

    anonymous_bytes: int
    file_bytes: int = 0
    shmem_bytes: int = 0
    swap_bytes: int = 0
    huge_bytes: int = 0
    """``MAP_HUGETLB`` pages, which are in none of the other fields."""
    mark_bytes: int | None = None
    """The kernel's high-water mark of the resident set since it was last reset; ``None`` where there is none."""

    @property
    def resident_bytes(self) -> int:
        return self.anonymous_bytes + self.file_bytes + self.shmem_bytes

    @property
    def unreclaimable_bytes(self) -> int:
        return self.anonymous_bytes + self.shmem_bytes + self.swap_bytes + self.huge_bytes

    @property
    def used_bytes(self) -> int:
        """All of it."""
        return self.anonymous_bytes + self.file_bytes + self.shmem_bytes + self.swap_bytes + self.huge_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A worker and its descendants at one instant, every shared page counted once (bytes, absolute)."""

    unreclaimable_bytes: int
    resident_bytes: int


NOTHING: Final = Tree(unreclaimable_bytes=0, resident_bytes=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The highest memory of one stretch of a test, in bytes above the stretch's baseline unless it says absolute."""

    baseline_bytes: int
    """Resident, absolute, when the stretch began."""
    peak_bytes: int
    """Unreclaimable."""
    peak_resident_bytes: int
    peak_file_bytes: int
    absolute_peak_bytes: int
    """Resident; what a process of its own would have shown."""
    error_bytes: int
    """How far ``peak_bytes`` can be off: the mark's own bound, and what no sample explains."""


@dataclass(slots=True)
class Segment:
    """What was seen between two resets of the mark."""

    resident_bytes: int = 0
    unreclaimable_bytes: int = 0
    file_bytes: int = 0
    mark_bytes: int = 0

    def add(self, reading: Reading) -> None:
        resident_bytes = reading.resident_bytes
        self.resident_bytes = max(self.resident_bytes, resident_bytes)
        self.unreclaimable_bytes = max(self.unreclaimable_bytes, reading.unreclaimable_bytes)
        self.file_bytes = max(self.file_bytes, reading.file_bytes)
        self.mark_bytes = max(self.mark_bytes, resident_bytes, reading.mark_bytes or 0)

    @property
    def unexplained_bytes(self) -> int:
        """Resident memory that the mark saw and no sample did."""
        return self.mark_bytes - self.resident_bytes

    @property
    def closed_unreclaimable_bytes(self) -> int:
        """The unreclaimable peak on the safe side: whatever is unexplained counts as unreclaimable."""
        return self.unreclaimable_bytes + self.unexplained_bytes


@dataclass(slots=True)
class Window:
    """One stretch of a test: a phase, a ``memory_budget`` block, or the whole."""

    name: str
    base: Reading
    tree_base: Tree
    mark_error_bytes: int
    closed_unreclaimable_bytes: int = 0
    unexplained_bytes: int = 0
    file_bytes: int = 0
    mark_bytes: int = 0
    copied_bytes: int = 0
    """Inherited pages that were written to: memory that growth of the resident set does not show."""
    uncertain_bytes: int = 0
    tree_growth: Tree = NOTHING

    def include(self, segment: Segment) -> None:
        if segment.closed_unreclaimable_bytes > self.closed_unreclaimable_bytes:
            self.closed_unreclaimable_bytes = segment.closed_unreclaimable_bytes
            self.unexplained_bytes = segment.unexplained_bytes
        self.file_bytes = max(self.file_bytes, segment.file_bytes)
        self.mark_bytes = max(self.mark_bytes, segment.mark_bytes)

    def include_tree(self, tree: Tree) -> None:
        grown, base = self.tree_growth, self.tree_base
        self.tree_growth = Tree(
            unreclaimable_bytes=max(grown.unreclaimable_bytes, tree.unreclaimable_bytes - base.unreclaimable_bytes),
            resident_bytes=max(grown.resident_bytes, tree.resident_bytes - base.resident_bytes),
        )

    @property
    def peak_bytes(self) -> int:
        """Unreclaimable, as in ``peak``, which costs ten times as much to ask for."""
        own = self.closed_unreclaimable_bytes - self.base.unreclaimable_bytes + self.copied_bytes
        return max(0, own, self.tree_growth.unreclaimable_bytes)

    def held_bytes(self, reading: Reading, tree: Tree) -> int:
        """Unreclaimable, above the baseline, at this instant."""
        own = reading.unreclaimable_bytes - self.base.unreclaimable_bytes + self.copied_bytes
        return max(0, own, tree.unreclaimable_bytes - self.tree_base.unreclaimable_bytes)

    @property
    def peak(self) -> Peak:
        return Peak(
            baseline_bytes=self.base.resident_bytes,
            peak_bytes=self.peak_bytes,
            peak_resident_bytes=max(0, self.mark_bytes - self.base.resident_bytes, self.tree_growth.resident_bytes),
            peak_file_bytes=max(0, self.file_bytes - self.base.file_bytes),
            absolute_peak_bytes=max(self.mark_bytes, self.base.resident_bytes + self.tree_growth.resident_bytes),
            error_bytes=self.mark_error_bytes + self.unexplained_bytes + self.uncertain_bytes,
        )


@dataclass(slots=True)
class Meter:
    """Turns samples (from outside) and boundaries (from the worker itself) into peaks of nested windows.

    The worker resets its mark at each boundary, so the mark of a segment belongs to every window open during it.
    """

    mark_error_bytes: int = 0
    windows: list[Window] = field(default_factory=list)
    tree: Tree = NOTHING
    """As of the last look; nothing while the process is alone."""
    _segment: Segment = field(default_factory=Segment)

    def glimpse(self, reading: Reading) -> None:
        """Take in what the process holds now; open windows know it with the next sample or boundary."""
        self._segment.add(reading)

    def sample(self, reading: Reading) -> None:
        """Take in what the process holds now; open windows know it at once."""
        self._segment.add(reading)
        for window in self.windows:
            window.include(self._segment)

    def sample_mark(self, mark_bytes: int) -> None:
        """Take in a mark that was read without a reading: the kernel's last word on a process that died."""
        self._segment.mark_bytes = max(self._segment.mark_bytes, mark_bytes)
        for window in self.windows:
            window.include(self._segment)

    def sample_tree(self, tree: Tree | None) -> None:
        """Take in what the process and its descendants hold now; ``None`` when it is alone."""
        self.tree = tree or NOTHING
        for window in self.windows:
            window.include_tree(self.tree)

    def boundary(self, reading: Reading, *, copied_bytes: int = 0, uncertain_bytes: int = 0) -> None:
        """End the segment with the reading that the worker took just before it reset its mark."""
        self.sample(reading)
        for window in self.windows:
            window.copied_bytes += copied_bytes
            window.uncertain_bytes += uncertain_bytes
        self._segment = Segment()
        self._segment.add(without_mark(reading))

    def open(self, name: str, reading: Reading, tree_base: Tree) -> Window:
        """Begin a window at a boundary."""
        window = Window(name, reading, tree_base, self.mark_error_bytes)
        window.include(self._segment)
        self.windows.append(window)
        return window

    def close(self) -> Window:
        """End the innermost window at a boundary."""
        return self.windows.pop()


def without_mark(reading: Reading) -> Reading:
    """The same reading just after the mark was reset to what is resident."""
    return dataclasses.replace(reading, mark_bytes=None)
