"""The highest sum of what several ranks held at one instant, with the inherited pages that they had copied by then."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Segment:
    """The time of one rank since its copies were last counted."""

    began_s: float = 0.0
    copied_bytes: int = 0
    """Its copies, as counted then."""
    highest_bytes: int = 0
    """The highest sum of all ranks since then."""
    at_s: float = 0.0
    """The time of that sum."""

    def rise(self, held_bytes: int, at_s: float) -> None:
        if held_bytes > self.highest_bytes:
            self.highest_bytes, self.at_s = held_bytes, at_s


@dataclass(slots=True)
class HighestSum:
    """A rank counts its copies at its boundaries alone: they count as made before the peak of the segment that ends there.

    The last sum of the segment has them too, and may be of a time at which further ranks ran.
    """

    ranks: int
    bytes: int = 0
    _segments: list[_Segment] = field(init=False)
    _last_bytes: int = 0
    _last_s: float = 0.0

    def __post_init__(self) -> None:
        self._segments = [_Segment() for _ in range(self.ranks)]

    def add(self, held_bytes: int, copied_bytes: Sequence[int], now_s: float) -> None:
        """Take in a sum, in which the copies of each rank are included as far as they were counted."""
        for number, copied in enumerate(copied_bytes):
            ended = self._segments[number]
            if copied <= ended.copied_bytes:
                continue
            counted_bytes = copied - ended.copied_bytes
            self._lift(ended.highest_bytes + counted_bytes, ended.at_s)
            self._lift(self._last_bytes + counted_bytes, self._last_s)
            self._segments[number] = _Segment(began_s=now_s, copied_bytes=copied)
        for segment in self._segments:
            segment.rise(held_bytes, now_s)
        self.bytes = max(self.bytes, held_bytes)
        self._last_bytes, self._last_s = held_bytes, now_s

    def _lift(self, held_bytes: int, at_s: float) -> None:
        self.bytes = max(self.bytes, held_bytes)
        for segment in self._segments:
            if at_s >= segment.began_s:
                segment.rise(held_bytes, at_s)
