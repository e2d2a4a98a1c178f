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
    """A rank counts its copies at its boundaries alone. They count as made before the peak of the segment that ends there."""

    ranks: int
    bytes: int = 0
    _segments: list[_Segment] = field(init=False)

    def __post_init__(self) -> None:
        self._segments = [_Segment() for _ in range(self.ranks)]

    def add(self, held_bytes: int, copied_bytes: Sequence[int], now_s: float) -> None:
        """Take in a sum, in which the copies of each rank are included as far as they were counted."""
        for number, copied in enumerate(copied_bytes):
            ended = self._segments[number]
            if copied <= ended.copied_bytes:
                continue
            lifted_bytes = ended.highest_bytes + copied - ended.copied_bytes
            self.bytes = max(self.bytes, lifted_bytes)
            for other in self._segments:
                if ended.at_s >= other.began_s:
                    other.rise(lifted_bytes, ended.at_s)
            self._segments[number] = _Segment(began_s=now_s, copied_bytes=copied)
        for segment in self._segments:
            segment.rise(held_bytes, now_s)
        self.bytes = max(self.bytes, held_bytes)
