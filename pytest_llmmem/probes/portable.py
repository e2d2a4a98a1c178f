"""Common parts of Windows and macOS: values that both lack, and values that psutil reads on both."""

import os
from collections.abc import Iterable
from typing import Literal

from pytest_llmmem.core.readings import Reading, Tree
from pytest_llmmem.probes.host import Mappings, Spans


def reset_mark() -> bool:
    """The high-water marks are never reset: ``core.readings.LifetimeMarks``."""
    return False


def private_maps() -> list[tuple[int, int]]:
    """Only asked of forked workers, of which there are none here."""
    return []


def mappings() -> Mappings:
    """Unknown here."""
    return Mappings(pid=os.getpid())


def mapped_files() -> Spans:
    """Unknown here."""
    return ()


def count_pages(pid: int, spans: Spans, kind: Literal["file", "shared", "present"]) -> int | None:  # noqa: ARG001 -- as on Linux
    """Unknown here; spawned workers inherit no pages, so nothing is missed."""
    return None


def unreclaimable_of(reading: Reading | None) -> int:
    """Unreclaimable memory of this process, from its own reading."""
    assert reading is not None, "a running process can read itself"
    return reading.unreclaimable_bytes


def sum_of(readings: Iterable[Reading | None]) -> Tree:
    """Several processes together, without those that are gone: spawned ones share code, and hardly any data."""
    known = [reading for reading in readings if reading is not None]
    return Tree(
        unreclaimable_bytes=sum(reading.unreclaimable_bytes for reading in known),
        resident_bytes=sum(reading.resident_bytes for reading in known),
    )


def descendants(pid: int) -> tuple[int, ...]:
    """Every process below this one.

    Here as in the next ones: psutil passes on what Windows says of a process that is just ending (``OSError``).
    """
    import psutil

    try:
        return tuple(child.pid for child in psutil.Process(pid).children(recursive=True))
    except (psutil.Error, OSError):
        return ()


def has_memory(pid: int) -> bool:
    """Whether a process lives."""
    import psutil

    return psutil.pid_exists(pid)


def shares_memory(pid: int, other: int) -> bool:  # noqa: ARG001 -- as on Linux
    """Unknown here."""
    return False


def faulted_bytes() -> int:
    """Only asked for what a forked worker copies, and there are none here."""
    return 0


def mark_error_bytes() -> int:
    """Both kernels account every page at once."""
    return 0


def written_bytes(pid: int | Literal["self"] = "self") -> int | None:  # noqa: ARG001 -- the probe's signature
    """Unknown here: psutil's counters include pipes and terminals."""
    return None


def open_files(pid: int) -> set[str]:  # noqa: ARG001 -- as on Linux
    """Unknown here: psutil would need the rights of an administrator."""
    return set()


def swap_bytes() -> int:
    """Swap of the machine."""
    import psutil

    return int(psutil.swap_memory().total)


def command(pid: int) -> tuple[str, ...]:
    """The program and the arguments that a process runs; empty where they cannot be read."""
    import psutil

    try:
        return tuple(psutil.Process(pid).cmdline())
    except (psutil.Error, OSError):
        return ()


def environment(pid: int) -> dict[str, str]:
    """The environment of a process; empty where it cannot be read."""
    import psutil

    try:
        return dict(psutil.Process(pid).environ())
    except (psutil.Error, OSError):
        return {}


def oom_kills_on_host() -> int | None:
    """Unknown here: the system does not count them."""
    return None


def gpu_files_there() -> bool:
    """Unknown here: no system file lists them, so torch must be asked."""
    return True


def gpu_files_open(pid: int | None = None) -> str | None:
    """Unknown: workers are spawned here in any case."""
    del pid
    return None
