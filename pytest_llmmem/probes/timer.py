"""How finely this process can wait: on Windows, waits end at ticks of 16 ms unless a finer timer is asked for."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from typing import Final

_TICK_MS: Final = 1


@contextlib.contextmanager
def fine_timer() -> Iterator[None]:
    """Let waits end within a millisecond. On Windows they otherwise end with the clock's tick, every 15.6 ms."""
    if sys.platform != "win32":
        yield
        return
    multimedia = ctypes.WinDLL("winmm")
    multimedia.timeBeginPeriod(_TICK_MS)
    try:
        yield
    finally:
        multimedia.timeEndPeriod(_TICK_MS)
