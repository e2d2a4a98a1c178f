"""One sample of a process's memory, and the peak of a stretch of a test."""

import dataclasses
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class LifetimeMarks:
    """The kernel's high-water marks of a process since it began, in bytes: Windows and macOS never reset them.

    Such a mark is the peak of a stretch only if it rose during the stretch. ``None``: there is no such mark.
    """

    unreclaimable_bytes: int | None = None
    resident_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A process's memory at one instant, in bytes."""

    anonymous_bytes: int
    file_bytes: int = 0
    """Pages of files that were mapped since the process was ready for its first test."""
    library_bytes: int = 0
    """Pages of files that were mapped before, such as the libraries' code. The state of the page cache decides how many
    become resident with one touched page, so only the absolute peak includes them."""
    shmem_bytes: int = 0
    swap_bytes: int = 0
    huge_bytes: int = 0
    """``MAP_HUGETLB`` pages, which are in none of the other fields."""
    committed_bytes: int | None = None
    """All that is unreclaimable, resident or not, where the kernel counts it by itself: the commit charge on Windows, the
    physical footprint on macOS. ``None`` on Linux, where it is the sum of the parts."""
    lifetime: LifetimeMarks | None = None
    """``None`` on Linux, where the high-water mark is reset."""
    mark_bytes: int | None = None
    """The kernel's high-water mark of the resident set since it was last reset; ``None`` where it cannot be reset."""
    faulted_bytes: int | None = None
    """Upper bound of the memory that page faults brought so far: anonymous memory grows by no more. ``None``: unknown."""

    @property
    def all_files_bytes(self) -> int:
        return self.file_bytes + self.library_bytes

    @property
    def resident_bytes(self) -> int:
        """All that the kernel calls resident, the libraries' pages too."""
        return self.anonymous_bytes + self.all_files_bytes + self.shmem_bytes

    @property
    def unreclaimable_bytes(self) -> int:
        if self.committed_bytes is not None:
            return self.committed_bytes
        return self.anonymous_bytes + self.shmem_bytes + self.swap_bytes + self.huge_bytes

    @property
    def counted_resident_bytes(self) -> int:
        """Value for ``count="resident"``: unreclaimable memory and the test's files, or the kernel's resident set."""
        if self.committed_bytes is not None:
            return self.resident_bytes  # what was committed and not touched is not in it
        return self.unreclaimable_bytes + self.file_bytes

    @property
    def used_bytes(self) -> int:
        """All memory of the process, in RAM or in swap."""
        return max(self.resident_bytes + self.swap_bytes + self.huge_bytes, self.unreclaimable_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A worker and its descendants at one instant, every shared page counted once (bytes, absolute)."""

    unreclaimable_bytes: int
    resident_bytes: int
    shmem_bytes: int = 0
    """The part of the unreclaimable bytes that is shared memory; 0 too where the platform does not tell it."""

    @property
    def file_bytes(self) -> int:
        """Resident pages of mapped files."""
        return self.resident_bytes - self.unreclaimable_bytes


NOTHING: Final = Tree(unreclaimable_bytes=0, resident_bytes=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The highest memory of one stretch of a test, in bytes above the stretch's baseline unless it says absolute."""

    baseline_bytes: int
    """Resident, absolute, when the stretch began, the libraries' pages too."""
    peak_bytes: int
    """Unreclaimable."""
    peak_resident_bytes: int
    """Unreclaimable and pages of files, without the libraries'."""
    peak_file_bytes: int
    absolute_peak_bytes: int
    """The high-water mark: resident memory with the baseline and with the libraries' pages."""
    error_bytes: int
    """Error of ``peak_bytes``: the error of the high-water mark, bytes that no sample explains, and pages too few to count."""
    resident_error_bytes: int | None = None
    """The same of ``peak_resident_bytes``; ``None`` in reports that do not have it."""
    method: Literal["kernel", "sampled"] = "kernel"
    """``sampled`` where the kernel keeps no high-water mark, or children were measured, too."""
    interval_ms: float = 0.0
    """Time between two samples."""


def without_mark(reading: Reading) -> Reading:
    """The same reading just after the high-water mark was reset to the resident set."""
    return dataclasses.replace(reading, mark_bytes=None)
