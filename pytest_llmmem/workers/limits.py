"""Hard limits around one worker, set from outside: a landing ``rlimit``, a Job Object, or a memory control group."""

import sys
from dataclasses import dataclass
from typing import Protocol

from pytest_llmmem.core.readings import Reading
from pytest_llmmem.probes.cgroups import own_group
from pytest_llmmem.workers.cgroup_limiter import CgroupLimiter
from pytest_llmmem.workers.worker import Worker


class Limiter(Protocol):
    """A hard limit for one job."""

    name: str

    def tick(self, held_bytes: int, reading: Reading) -> None:
        """Called with every sample, and with what the worker holds of its budget."""

    def refuses(self) -> bool:
        """Whether memory beyond the budget is refused, so that the line that asks for it raises."""

    def oom_kills(self) -> int:
        """OOM kills that the limit itself has caused."""

    def killed_at_bytes(self) -> int:
        """Use of the job and its children when the limit killed it; 0 when it did not."""

    def close(self) -> None:
        """Undo everything."""


class NoLimiter:
    """``watch``: the supervisor's polling is all there is."""

    name = "watch"

    def tick(self, held_bytes: int, reading: Reading) -> None:
        """Do nothing."""

    def refuses(self) -> bool:
        return False

    def oom_kills(self) -> int:
        return 0

    def killed_at_bytes(self) -> int:
        return 0

    def close(self) -> None:
        """Do nothing: no group was made."""


@dataclass(slots=True)
class JobLimiter:
    """The commit limit of the worker's Job Object: the offending line itself raises ``MemoryError``, over the whole tree.

    The job counts what the worker held before the test too, so that is added to the budget.
    """

    worker: Worker
    name: str = "job"

    def tick(self, held_bytes: int, reading: Reading) -> None:
        """The kernel does it."""

    def refuses(self) -> bool:
        return True

    def oom_kills(self) -> int:
        return 0

    def killed_at_bytes(self) -> int:
        return 0

    def close(self) -> None:
        """Prepare for the next job of its group."""
        self.worker.limit_commit(None)


def build_limiter(enforce: str, worker: Worker, limit_bytes: int) -> tuple[Limiter, str]:
    """The limiter that was asked for, and one sentence if another had to be taken."""
    if enforce == "rlimit":
        if sys.platform == "linux":
            from pytest_llmmem.workers.rlimit import RlimitLimiter

            return RlimitLimiter(worker.pid, limit_bytes), ""
        return NoLimiter(), "enforce='rlimit' needs Linux (prlimit): watched instead"
    if enforce == "job":
        if worker.limit_commit(worker.ready_bytes + limit_bytes):
            return JobLimiter(worker), ""
        return NoLimiter(), "enforce='job' needs Windows (a Job Object): watched instead"
    if enforce == "cgroup":
        parent = own_group()
        if parent is None:
            return NoLimiter(), "enforce='cgroup' needs a memory control group: watched instead"
        try:
            return CgroupLimiter.enclose(worker.pid, limit_bytes, parent), ""
        except OSError as error:
            return NoLimiter(), f"enforce='cgroup' needs a writable memory control group ({error}): watched instead"
    return NoLimiter(), ""
