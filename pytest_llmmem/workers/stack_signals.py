"""Signals by which a worker is asked for its stacks; on platforms without real-time signals they are never sent."""

import signal
from typing import Final

FATAL_DUMP: Final = getattr(signal, "SIGRTMIN", 0) + 7
"""Dump every Python stack, then die of it (see ``child.arm_dumps``)."""
LIVE_DUMP: Final = getattr(signal, "SIGRTMIN", 0) + 6
"""Dump the main thread's Python stack and go on."""

LIVE_REST: Final = getattr(signal, "SIGRTMIN", 0) + 4
"""Write the outer end of that stack, which ``LIVE_DUMP`` leaves out, as soon as Python runs, and go on."""

HOLD: Final = getattr(signal, "SIGRTMIN", 0) + 5
"""Stand still: sent ahead of ``FATAL_DUMP``, which takes a millisecond in which memory grows by 10 MB and more."""
