"""Peaks of nested windows (a test, its phases, its blocks), computed from samples and boundaries."""

from dataclasses import dataclass, field
from typing import Final, Self

from pytest_llmmem.core.budgets import Budget, Verdict
from pytest_llmmem.core.endings import Exit
from pytest_llmmem.core.readings import NOTHING, Peak, Reading, Tree, without_mark
from pytest_llmmem.core.segments import NOTHING_SEEN, Bounds, Segment


@dataclass(frozen=True, slots=True)
class Copied:
    """Inherited pages that a forked worker has written to since its first boundary: its resident set does not show them."""

    bytes: int
    error_bytes: int
    """Error of the count: copies that are too few to be counted."""
    counts: int = 0
    """How often they were counted: since the last time they are estimated."""

    def growth_error_bytes(self, later: "Copied") -> int:
        """The error of the pages copied from now until ``later``: between two counts, one estimate is part of the other."""
        if later.counts == self.counts:
            return abs(later.error_bytes - self.error_bytes)
        return later.error_bytes + self.error_bytes


NONE_COPIED: Final = Copied(0, 0)


@dataclass(frozen=True, slots=True)
class Highest:
    """The peaks of one segment or several, absolute and with copied pages."""

    unreclaimable: Bounds = NOTHING_SEEN
    resident: Bounds = NOTHING_SEEN
    file_bytes: int = 0
    mark_bytes: int = 0

    @classmethod
    def of(cls, segment: Segment, copied: Copied) -> Self:
        """Combine a segment with the copied pages, which count as copied before its peak."""
        return cls(
            segment.unreclaimable.plus(copied.bytes),
            segment.resident.plus(copied.bytes),
            segment.file_bytes,
            segment.mark_bytes,
        )

    def joined(self, other: "Highest") -> "Highest":
        return Highest(
            self.unreclaimable.joined(other.unreclaimable),
            self.resident.joined(other.resident),
            max(self.file_bytes, other.file_bytes),
            max(self.mark_bytes, other.mark_bytes),
        )


@dataclass(slots=True)
class Window:
    """One stretch of a test: a phase, a ``memory_budget`` block, or the whole."""

    name: str
    base: Reading
    base_copied: Copied
    tree_base: Tree
    mark_error_bytes: int
    segment: Segment
    """The current segment."""
    copied: Copied
    """Copies as of the last boundary."""
    ended: Highest = Highest()
    """Peaks of the earlier segments."""
    tree_growth: Tree = NOTHING

    def begin_segment(self, segment: Segment, copied: Copied) -> None:
        """End the segment that is going on, and begin the next one."""
        self.copied = copied
        self.ended, self.segment = self.highest, segment

    def include_tree(self, tree: Tree) -> None:
        grown, base = self.tree_growth, self.tree_base
        self.tree_growth = Tree(
            unreclaimable_bytes=max(grown.unreclaimable_bytes, tree.unreclaimable_bytes - base.unreclaimable_bytes),
            resident_bytes=max(grown.resident_bytes, tree.resident_bytes - base.resident_bytes),
        )

    def growth_bytes(self, unreclaimable_bytes: int, tree: Tree) -> int:
        """Growth above the baseline of the process and its tree at one instant."""
        own = self._above_base(unreclaimable_bytes + self.copied.bytes)
        return max(0, own, tree.unreclaimable_bytes - self.tree_base.unreclaimable_bytes)

    @property
    def copied_growth_bytes(self) -> int:
        """Copies since the window was opened, as of the last boundary."""
        return self.copied.bytes - self.base_copied.bytes

    def kept_bytes(self, reading: Reading) -> int:
        """Growth above the baseline of the process itself at the window's end; negative when it holds less."""
        return self._above_base(reading.unreclaimable_bytes + self.copied.bytes)

    @property
    def kept_error_bytes(self) -> int:
        """Error of ``kept_bytes``: the errors of two readings, and pages too few to count."""
        return self.mark_error_bytes + self.base_copied.growth_error_bytes(self.copied)

    @property
    def highest(self) -> Highest:
        """Highest values until now."""
        return self.ended.joined(Highest.of(self.segment, self.copied))

    @property
    def peak(self) -> Peak:
        highest, tree, base = self.highest, self.tree_growth, self.base
        resident = highest.resident.reported - base.counted_resident_bytes - self.base_copied.bytes
        return Peak(
            baseline_bytes=base.resident_bytes,
            peak_bytes=max(0, self._above_base(highest.unreclaimable.reported), tree.unreclaimable_bytes),
            peak_resident_bytes=max(0, resident, tree.resident_bytes),
            peak_file_bytes=max(0, highest.file_bytes - base.file_bytes),
            absolute_peak_bytes=max(highest.mark_bytes, base.resident_bytes + tree.resident_bytes),
            error_bytes=self._error_bytes(highest.unreclaimable.error),
            resident_error_bytes=self._error_bytes(highest.resident.error),
        )

    @property
    def is_peak_of_tree(self) -> bool:
        """Whether the peak is that of the process with its descendants: alone it never held more."""
        return self.tree_growth.unreclaimable_bytes >= self._above_base(self.highest.unreclaimable.reported)

    @property
    def excess_bytes(self) -> int:
        """Highest possible excess of the unreclaimable peak."""
        return self._error_bytes(self.highest.unreclaimable.excess)

    @property
    def resident_excess_bytes(self) -> int:
        """Highest possible excess of the resident peak."""
        return self._error_bytes(self.highest.resident.excess)

    def judge(self, budget: Budget, *, is_sampled: bool) -> Verdict:
        """A budget of host memory beside the growth, or beside the absolute peak where it is a share of the machine.

        Without samples, a peak that only the high-water mark shows counts as certain.
        """
        peak = self.peak
        if budget.count != "resident":
            error_bytes = self.excess_bytes if is_sampled else self.mark_error_bytes
            return budget.judge(peak.peak_bytes + self._held_before(budget), error_bytes)
        if budget.limit.is_share:
            return budget.judge(peak.absolute_peak_bytes, self.mark_error_bytes)
        return budget.judge(peak.peak_resident_bytes, self.resident_excess_bytes)

    def held_bytes(self, budget: Budget, reading: Reading, tree: Tree) -> int:
        """The current use of the process and its tree, counted as the budget counts."""
        held = self.growth_bytes(reading.unreclaimable_bytes, tree) + self._held_before(budget)
        return held + (reading.file_bytes - self.base.file_bytes if budget.count == "resident" else 0)

    def _held_before(self, budget: Budget) -> int:
        """Memory from before the window that the budget counts: all of it for a share of the machine, else none."""
        return self.base.unreclaimable_bytes if budget.limit.is_share else 0

    def _above_base(self, unreclaimable_bytes: int) -> int:
        return unreclaimable_bytes - self.base.unreclaimable_bytes - self.base_copied.bytes

    def _error_bytes(self, of_looks: int) -> int:
        return self.mark_error_bytes + of_looks + self.base_copied.growth_error_bytes(self.copied)


@dataclass(slots=True)
class Meter:
    """Turns samples (from outside) and boundaries (from the worker itself) into peaks of nested windows.

    The worker resets its mark at each boundary, so the mark of a segment belongs to every window open during it.
    """

    mark_error_bytes: int = 0
    windows: list[Window] = field(default_factory=list)
    segment: Segment = field(default_factory=lambda: Segment(Reading(anonymous_bytes=0)))
    """The current segment."""
    copied: Copied = NONE_COPIED
    tree: Tree = NOTHING
    """Tree as of the last sample; ``NOTHING`` while the process has no children."""

    def sample(self, reading: Reading) -> None:
        """Take in what the process holds now."""
        self.segment.add(reading)

    def sample_exit(self, exit_: Exit) -> None:
        """Add the high-water marks of a process that died, as far as the platform keeps them."""
        if exit_.peak_resident_bytes is not None:
            self.segment.add_mark(exit_.peak_resident_bytes)
        if exit_.lifetime is not None:
            self.segment.add_lifetime(exit_.lifetime)

    def sample_tree(self, tree: Tree | None) -> None:
        """Take in what the process and its descendants hold now; ``None`` when it is alone."""
        self.tree = tree or NOTHING
        for window in self.windows:
            window.include_tree(self.tree)

    def boundary(self, reading: Reading, copied: Copied) -> Segment:
        """End the segment with the reading that the worker took just before it reset its high-water mark; returns it."""
        ended = self.segment
        ended.add(reading)
        self.segment, self.copied = Segment(without_mark(reading)), copied
        for window in self.windows:
            window.begin_segment(self.segment, copied)
        return ended

    def open(self, name: str, reading: Reading, tree_base: Tree) -> Window:
        """Begin a window at a boundary."""
        window = Window(name, reading, self.copied, tree_base, self.mark_error_bytes, self.segment, self.copied)
        self.windows.append(window)
        return window

    def replace_outermost(self, name: str, reading: Reading, tree_base: Tree) -> Window:
        """Begin the outermost window anew at a boundary: what it has seen until now is forgotten."""
        self.windows[0] = self.open(name, reading, tree_base)
        del self.windows[-1]
        return self.windows[0]

    def close(self) -> Window:
        """End the innermost window at a boundary: what follows is not seen by it, whoever keeps it."""
        window = self.windows.pop()
        window.begin_segment(Segment(window.segment.first), window.copied)
        return window
