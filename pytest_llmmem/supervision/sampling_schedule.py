"""Times and kinds of the samples of a running test. Times are seconds of one clock."""

from dataclasses import dataclass, field
from typing import Final, Literal

SampleKind = Literal["cheap", "full", "tree"]
"""``cheap``: growth alone; ``full``: everything about the process; ``tree``: its descendants and the machine, too."""

IDLE_AFTER_S: Final = 0.5
AMPLE_BYTES: Final = 256 * 2**20
"""Closer than this to a limit, the worker is never treated as idle."""
_NEAR: Final = 0.1
_IDLE: Final = 10.0
"""Time to the next sample, in intervals."""
_READING_EVERY: Final = 5
_AHEAD_S: Final = 0.008
"""A limit is near if it would be reached within this time."""
_FADING: Final = 0.5
"""The growth rate keeps at least this share at each sample: memory comes in pieces of 2 MB, and a sample may miss one."""
_SURVEY_S: Final = 0.05


@dataclass(slots=True)
class SamplingSchedule:
    """Sample faster while a limit may be crossed before the next sample, slower while nothing changes."""

    interval_s: float
    started_s: float
    near: bool = False
    """Whether a limit would be reached soon, at the current growth rate."""
    _room_bytes: int | None = 0
    _used_bytes: int = 0
    _used_s: float = 0.0
    _growth_per_s: float = 0.0
    """Bytes a second."""
    _changed_s: float = field(init=False)
    _tree_s: float = field(init=False)
    _samples: int = 0

    def __post_init__(self) -> None:
        self._changed_s = self._tree_s = self.started_s

    def next_sample(self, now_s: float) -> SampleKind:
        """The kind of the sample that is due now."""
        self._samples += 1
        if now_s >= self._tree_s:
            self._tree_s = now_s + _SURVEY_S * (2 if self.idle(now_s) else 1)
            return "tree"
        return "full" if self.near or self._samples % _READING_EVERY == 0 else "cheap"

    def wait_s(self, now_s: float) -> float:
        """Time until the next sample."""
        return self.interval_s * (_NEAR if self.near else _IDLE if self.idle(now_s) else 1)

    def idle(self, now_s: float) -> bool:
        """Whether nothing has changed for a while, and no limit is near."""
        still = now_s - self._changed_s > IDLE_AFTER_S
        return still and (self._room_bytes is None or self._room_bytes > AMPLE_BYTES)

    def changed(self, now_s: float) -> None:
        """Something was seen to change."""
        self._changed_s = now_s

    def room(self, room_bytes: int | None, used_bytes: int, now_s: float) -> None:
        """Take in the bytes to the next action (``None`` without a limit) and the current use."""
        self._growth_per_s = self._growth_per_s_since(used_bytes, now_s)
        self._room_bytes, self._used_bytes, self._used_s = room_bytes, used_bytes, now_s
        self.near = room_bytes is not None and room_bytes < self._growth_per_s * _AHEAD_S

    def is_judged_now(self, used_bytes: int, now_s: float) -> bool:
        """Whether a cheap sample saw so much that a limit may be crossed before the next full one."""
        if self._room_bytes is None:
            return False
        room_bytes = self._room_bytes - (used_bytes - self._used_bytes)
        return room_bytes < self._growth_per_s_since(used_bytes, now_s) * _AHEAD_S

    def _growth_per_s_since(self, used_bytes: int, now_s: float) -> float:
        """Growth in bytes per second since the room was last updated."""
        passed_s = max(now_s - self._used_s, 1e-6)
        return max((used_bytes - self._used_bytes) / passed_s, self._growth_per_s * _FADING)
