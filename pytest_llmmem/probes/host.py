"""Values that every platform's probe returns: the machine's memory, and the readings of an ended process."""

from dataclasses import dataclass

from pytest_llmmem.core.readings import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """The host, or the container if its limit is nearer, in bytes."""

    total_bytes: int
    available_bytes: int
    machine_available_bytes: int
    """Free memory of the host, without the container's limit: psutil, and so accelerate, calls it available."""
    limited_by: str
    """``"host"``, or the control group whose limit is nearer."""


Spans = tuple[tuple[int, int], ...]
"""First and end page of each stretch of an address space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mappings:
    """Address ranges that a process has mapped for itself."""

    pid: int
    files: Spans = ()
    """Mapped files, such as the libraries."""
    private: Spans = ()
    """All of it: a process that is forked inherits it, and copies each page that it writes to."""


class Gone:
    """Takes the place of a process's readings once there is no such process."""

    def read(self) -> None:
        """Do nothing: this cannot be read."""

    def read_growth(self) -> None:
        """Do nothing: this cannot be read."""

    def read_pages(self) -> None:
        """Do nothing: this cannot be read."""

    def learn(self, reading: Reading) -> None:
        """Do nothing: there are no pages to classify."""

    def close(self) -> None:
        """Do nothing: no descriptor is open."""
