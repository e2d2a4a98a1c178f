"""Memory of the machine as a value; every platform's probe returns this."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """The host, or the container if its limit is nearer, in bytes."""

    total_bytes: int
    available_bytes: int
    limited_by: str
    """``"host"``, or the control group whose limit is nearer."""
