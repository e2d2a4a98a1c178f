"""How often, and how closely, a running test is looked at. Times are seconds of one clock."""

from dataclasses import dataclass, field
from typing import Final, Literal

Look = Literal["glance", "reading", "survey"]
"""Growth alone; all that is known of the process; its descendants and the machine, too."""

IDLE_AFTER_S: Final = 0.5
AMPLE_BYTES: Final = 256 * 2**20
"""Nobody is idle whose limit is nearer than that."""
_NEAR: Final = 0.1
_IDLE: Final = 10.0
"""What a look is waited for, in intervals."""
_READING_EVERY: Final = 5
_AHEAD: Final = 4
"""A limit is near when what was added since it was looked at last would reach it within so many times as much."""
_SURVEY_S: Final = 0.05


@dataclass(slots=True)
class Pace:
    """Faster while a limit may be crossed before the next look, slower while nothing changes."""

    interval_s: float
    started_s: float
    near: bool = False
    """Whether a limit may be crossed within the next looks, at the pace of the last one."""
    _room_bytes: int | None = 0
    _used_bytes: int = 0
    _changed_s: float = field(init=False)
    _survey_s: float = field(init=False)
    _looks: int = 0

    def __post_init__(self) -> None:
        self._changed_s = self._survey_s = self.started_s

    def look(self, now_s: float) -> Look:
        """How to look now."""
        self._looks += 1
        if now_s >= self._survey_s:
            self._survey_s = now_s + _SURVEY_S * (2 if self.idle(now_s) else 1)
            return "survey"
        return "reading" if self.near or self._looks % _READING_EVERY == 0 else "glance"

    def wait_s(self, now_s: float) -> float:
        """Until the next look."""
        return self.interval_s * (_NEAR if self.near else _IDLE if self.idle(now_s) else 1)

    def idle(self, now_s: float) -> bool:
        """Whether nothing has changed for a while, and no limit is near."""
        still = now_s - self._changed_s > IDLE_AFTER_S
        return still and (self._room_bytes is None or self._room_bytes > AMPLE_BYTES)

    def changed(self, now_s: float) -> None:
        """Something was seen to change."""
        self._changed_s = now_s

    def room(self, room_bytes: int | None, used_bytes: int) -> None:
        """What may still be used before the test is stopped, ``None`` without a limit; and what is used now."""
        before = self._room_bytes
        self.near = room_bytes is not None and before is not None and room_bytes < _AHEAD * (before - room_bytes)
        self._room_bytes, self._used_bytes = room_bytes, used_bytes

    def is_judged_now(self, used_bytes: int) -> bool:
        """Whether a glance has seen so much that a limit may be crossed before the next full reading."""
        return self._room_bytes is not None and _AHEAD * (used_bytes - self._used_bytes) > self._room_bytes
