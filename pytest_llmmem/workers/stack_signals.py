"""Signals by which a worker is asked for its stacks; on platforms without real-time signals they are never sent."""

import ctypes
import os
import signal
import sys
from typing import Final

FATAL_DUMP: Final = getattr(signal, "SIGRTMIN", 0) + 7
"""Dump every Python stack, then die of it (see ``child.arm_dumps``)."""
LIVE_DUMP: Final = getattr(signal, "SIGRTMIN", 0) + 6
"""Dump the main thread's Python stack and go on."""

LIVE_REST: Final = getattr(signal, "SIGRTMIN", 0) + 4
"""Write the outer end of that stack, which ``LIVE_DUMP`` leaves out, as soon as Python runs, and go on."""

HOLD: Final = getattr(signal, "SIGRTMIN", 0) + 5
"""Stand still: sent ahead of ``FATAL_DUMP``, which takes a millisecond in which memory grows by 10 MB and more."""


def signal_main_thread(pid: int, number: int) -> None:
    """The thread whose number is the process's: sent to the process, the signal may go to any that does not block it."""
    tgkill = None if sys.platform == "win32" else getattr(ctypes.CDLL(None), "tgkill", None)
    if tgkill is None:
        os.kill(pid, number)
    else:
        tgkill(pid, pid, number)
