"""Linux: a limit of the kernel on private memory, set when a worker nears its budget."""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "linux", "the platform's switch is workers.limits.build_limiter"

import contextlib
import resource
from dataclasses import dataclass
from typing import Final

from pytest_llmmem.core.readings import Reading
from pytest_llmmem.probes.linux import status_sizes

_LANDING: Final = 0.7
"""The share of its budget from which a worker gets its ``RLIMIT_DATA``."""
_MARGIN_BYTES: Final = 4 * 2**20
"""Memory that malloc mapped ahead, and that the worker may still touch after the limit is set."""


@dataclass(slots=True)
class RlimitLimiter:
    """``RLIMIT_DATA``, set only when the worker nears its budget: the offending line itself raises.

    The limit counts private writable mappings whether they are touched or not, and safetensors maps whole files so:
    set from the start, it would refuse maps that cost nothing. So one allocation that is larger than all that is left is
    granted to a worker that has not come near yet, and watched as it is touched.
    """

    pid: int
    limit_bytes: int
    name: str = "rlimit"
    _landed: bool = False

    def tick(self, held_bytes: int, reading: Reading) -> None:
        if self._landed or held_bytes < _LANDING * self.limit_bytes:
            return
        self._landed = True
        with contextlib.suppress(OSError):
            now = status_sizes(self.pid)
            left = self.limit_bytes - held_bytes - (now["RssAnon"] - reading.anonymous_bytes)
            limit = now["VmData"] + left - _MARGIN_BYTES
            resource.prlimit(self.pid, resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))

    def refuses(self) -> bool:
        return self._landed

    def oom_kills(self) -> int:
        return 0

    def killed_at_bytes(self) -> int:
        return 0

    def close(self) -> None:
        """A worker's limit dies with it, or is lifted for the next job of its group."""
        with contextlib.suppress(OSError):
            resource.prlimit(self.pid, resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
