"""Where workers come from."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pytest_llmmem.workers.worker import Worker


class NoWorkerError(Exception):
    """No worker could be made; the message is the reason."""


class WorkerSource(Protocol):
    """Makes workers."""

    notes: list[str]
    """Events of the worker since the list was last emptied."""

    def take(self) -> "Worker": ...
    def prepare(self) -> None: ...
    def drain(self) -> None: ...
    def close(self) -> None: ...
