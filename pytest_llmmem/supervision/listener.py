"""The owner of a job, as the supervisor sees it."""

from typing import Any, Protocol

from pytest_llmmem.core.readings import Reading


class Listener(Protocol):
    """Receives messages and progress while the job runs."""

    def received(self, what: Any) -> None:
        """Handle a message from the body."""

    def progress(self, pid: int, seconds: float, reading: Reading, growth_bytes: int) -> None:
        """Called at each sample of the tree."""
