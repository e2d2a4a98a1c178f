"""Whether the kernel's OOM killer may have ended a worker."""

from dataclasses import dataclass
from typing import Self

from pytest_llmmem import probes
from pytest_llmmem.core.endings import Evidence, Exit
from pytest_llmmem.workers.limits import Limiter


@dataclass(frozen=True, slots=True)
class OomKills:
    """The machine's OOM kills when a job began."""

    _before: int | None
    """``None`` where they cannot be read."""

    @classmethod
    def now(cls) -> Self:
        """Read them."""
        return cls(probes.oom_kills_on_host())

    def evidence(self, limiter: Limiter, origin_exit: Exit | None) -> Evidence:
        """Kills since the job began, and the signal that the process which the worker was forked from ended with."""
        now = probes.oom_kills_on_host()
        return Evidence(
            oom_kills_in_group=limiter.oom_kills(),
            oom_kills_on_host=now - self._before if now is not None and self._before is not None else 0,
            oom_kills_readable=now is not None,
            ended_with=None if origin_exit is None else origin_exit.signal,
        )
