"""Selects the points of a job's timeline."""

from dataclasses import dataclass, field
from typing import Literal

from pytest_llmmem.core.record_parts import MarkRecord, TimelineRecord
from pytest_llmmem.core.timeline import Point, Timeline

MarkKind = Literal["shard", "breach", "death"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """One moment of a job, in seconds after its beginning and bytes above its baseline."""

    seconds: float
    held_bytes: int
    peak_bytes: int
    """The high-water mark since the last boundary. It may be higher than all samples."""
    file_bytes: int
    vram_bytes: int


@dataclass(slots=True)
class TimelineRecorder:
    """Records the current use, and the peaks that only the kernel's high-water mark shows."""

    _timeline: Timeline = field(default_factory=Timeline)
    _drawn_bytes: int = 0
    """The highest point since the last boundary."""

    def sample(self, now: Instant) -> None:
        """Add the current use, or the peak if the high-water mark has just risen above all points."""
        self._add(now, now.peak_bytes if now.peak_bytes > self._drawn_bytes else now.held_bytes)

    def boundary(self, now: Instant) -> None:
        """Add the peak that only the boundary shows, and the current use."""
        if now.peak_bytes > self._drawn_bytes:
            self._add(now, now.peak_bytes)
        self.begin_anew()
        self._add(now, now.held_bytes)

    def mark(self, kind: MarkKind, text: str, seconds: float) -> None:
        """Note a moment."""
        self._timeline.mark(MarkRecord(seconds=round(seconds, 4), kind=kind, text=text))

    def begin_anew(self) -> None:
        """Begin a new stretch: points of the previous stretch must not hide its peaks."""
        self._drawn_bytes = 0

    def record(self) -> TimelineRecord:
        return self._timeline.record()

    def _add(self, now: Instant, bytes_: int) -> None:
        self._drawn_bytes = max(self._drawn_bytes, bytes_)
        self._timeline.add(Point(now.seconds, bytes_, now.file_bytes, now.vram_bytes))
