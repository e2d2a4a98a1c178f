"""A test over time, at a bounded size whatever its length."""

from dataclasses import dataclass, field
from typing import Final

from pytest_llmmem.core.record_parts import MarkRecord, TimelineRecord

POINTS: Final = 2000
"""No timeline has more; 2,000 are about 60 kB of JSON."""


@dataclass(frozen=True, slots=True)
class Point:
    """Growth in bytes at one time, or the highest of the stretch that ends there."""

    seconds: float
    unreclaimable_bytes: int
    file_bytes: int
    vram_bytes: int = 0

    def joined(self, later: "Point") -> "Point":
        """One point for two: the later time, and the higher numbers, so that no peak is thinned away."""
        return Point(
            later.seconds,
            max(self.unreclaimable_bytes, later.unreclaimable_bytes),
            max(self.file_bytes, later.file_bytes),
            max(self.vram_bytes, later.vram_bytes),
        )

    def is_level_with(self, other: "Point") -> bool:
        return (
            self.unreclaimable_bytes == other.unreclaimable_bytes
            and self.file_bytes == other.file_bytes
            and self.vram_bytes == other.vram_bytes
        )


@dataclass(slots=True)
class Timeline:
    """Takes in samples in order; when they become too many, neighbors are joined, and from then on as they come."""

    marks: list[MarkRecord] = field(default_factory=list)
    _points: list[Point] = field(default_factory=list)
    _stride: int = 1
    _joined: int = 0
    """Number of samples that the last point represents."""

    def add(self, point: Point) -> None:
        if len(self._points) > 1 and self._points[-2].is_level_with(point) and self._points[-1].is_level_with(point):
            self._points[-1] = point  # the end of a level stretch moves on
        elif self._points and self._joined < self._stride:
            self._points[-1] = self._points[-1].joined(point)
            self._joined += 1
        else:
            self._points.append(point)
            self._joined = 1
        if len(self._points) > POINTS:
            self._halve()

    def mark(self, mark: MarkRecord) -> None:
        if len(self.marks) < POINTS:
            self.marks.append(mark)

    def record(self) -> TimelineRecord:
        return TimelineRecord(
            seconds=tuple(round(point.seconds, 4) for point in self._points),
            unreclaimable_bytes=tuple(point.unreclaimable_bytes for point in self._points),
            file_bytes=tuple(point.file_bytes for point in self._points),
            vram_bytes=tuple(point.vram_bytes for point in self._points) if self._has_vram else (),
            marks=tuple(self.marks),
        )

    @property
    def _has_vram(self) -> bool:
        return any(point.vram_bytes for point in self._points)

    def _halve(self) -> None:
        *points, newest = self._points  # an even number, and one that has just begun
        self._points = [first.joined(second) for first, second in zip(points[::2], points[1::2], strict=True)]
        self._points.append(newest)
        self._stride *= 2
