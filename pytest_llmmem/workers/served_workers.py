"""The parent's side of workers that a server has started (Linux)."""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "linux", "the platform's switch is plugin.run.pool"

from typing import TYPE_CHECKING

from pytest_llmmem.core.endings import Exit
from pytest_llmmem.core.readings import NOTHING, Tree
from pytest_llmmem.workers.channel import Channel
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.worker import Worker

if TYPE_CHECKING:
    from pytest_llmmem.workers.served import Server


class ServedWorker(Worker):
    """A worker that a server has started: a fresh interpreter."""

    def __init__(self, pid: int, channel: Channel, files: SessionFiles, source: "Server") -> None:
        super().__init__(pid, channel, files)
        self.source = source

    def reap(self, timeout_s: float) -> Exit | None:
        exit_ = self.source.reap(self.pid, timeout_s)
        self.origin_exit = self.source.server_exit
        return exit_

    @property
    def end_sign(self) -> int | None:
        return self.source.fileno()

    def may_leave_unobserved(self) -> bool:
        return self.source.release(self.pid)

    def family_without_it(self) -> Tree:
        return NOTHING


class ForkedWorker(ServedWorker):
    """A worker that is a copy of its server: it shares pages with it until one of them writes to them."""

    @property
    def origin(self) -> int | None:
        return self.source.server_pid

    def siblings(self) -> tuple[int, ...]:
        return self.source.others(self.pid)

    def family_without_it(self) -> Tree:
        together = self.shared_with(())
        return Tree(
            unreclaimable_bytes=together.unreclaimable_bytes - self.private_bytes,
            resident_bytes=together.resident_bytes - self.private_bytes,
            shmem_bytes=together.shmem_bytes,
        )
