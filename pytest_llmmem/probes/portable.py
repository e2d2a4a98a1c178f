"""macOS and Windows, through psutil. Type-checked for both and not run on either yet: ``docs/platforms.md``.

There is no split into anonymous and file-backed pages and no resettable mark here, so all resident memory counts as
unreclaimable and peaks are sampled; reports say ``sampled``.
"""

import os
from collections.abc import Iterable
from typing import Final, Literal

import psutil

from pytest_llmmem.core.readings import Reading, Tree
from pytest_llmmem.probes.host import Gone, HostMemory, Mappings, Spans

METHOD: Final[Literal["kernel", "sampled"]] = "sampled"


class Memory:
    """Readings of one process."""

    def __init__(self, pid: int) -> None:
        try:
            self._process = psutil.Process(pid)
        except psutil.Error as error:
            raise ProcessLookupError(pid) from error

    def read(self) -> Reading | None:
        """The process now; ``None`` once it is gone."""
        try:
            return Reading(anonymous_bytes=self._process.memory_info().rss)
        except psutil.Error:
            return None

    def read_growth(self) -> Reading | None:
        """There is nothing cheaper than a reading."""
        return self.read()

    def read_pages(self) -> Reading | None:
        """Pages of files are not told apart."""
        return self.read()

    def learn(self, reading: Reading) -> None:
        """Nothing is kept from one reading to the next."""

    def close(self) -> None:
        """Nothing is held open."""


def open_memory(pid: int, libraries: Spans = ()) -> Memory | Gone:  # noqa: ARG001 -- the probe's signature
    """Readings of a process; of one that has ended already, there are none."""
    try:
        return Memory(pid)
    except ProcessLookupError:
        return Gone()


def reset_mark() -> bool:
    """There is no mark that can be reset from inside."""
    return False


def private_maps() -> list[tuple[int, int]]:
    """Only asked of forked workers, of which there are none here."""
    return []


def mappings() -> Mappings:
    """Unknown here."""
    return Mappings(pid=os.getpid())


def count_pages(pid: int, spans: Spans, kind: Literal["file", "shared"]) -> int | None:  # noqa: ARG001 -- as on Linux
    """Unknown here; spawned workers inherit no pages, so nothing is missed."""
    return None


def count_unreclaimable() -> int:
    """What this process holds."""
    reading = Memory(os.getpid()).read()
    assert reading is not None, "a running process can read itself"
    return reading.unreclaimable_bytes


def shared_once(pids: Iterable[int], siblings: Iterable[int] = ()) -> Tree:  # noqa: ARG001 -- as above
    """The plain sum: spawned processes share code, and hardly any data."""
    readings = [reading for pid in pids if (reading := open_memory(pid).read())]
    total = sum(reading.resident_bytes for reading in readings)
    return Tree(unreclaimable_bytes=total, resident_bytes=total)


def descendants(pid: int) -> tuple[int, ...]:
    """Every process below this one."""
    try:
        return tuple(child.pid for child in psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return ()


def has_memory(pid: int) -> bool:
    """Whether a process lives."""
    return psutil.pid_exists(pid)


def shares_memory(pid: int, other: int) -> bool:  # noqa: ARG001 -- as on Linux
    """Unknown here."""
    return False


def faulted_bytes() -> int:
    """Only asked for what a forked worker copies, and there are none here."""
    return 0


def mark_error_bytes() -> int:
    """No mark, so no error of one; what sampling misses is unknown."""
    return 0


def host_memory() -> HostMemory:
    """The machine, as psutil sees it."""
    memory = psutil.virtual_memory()
    return HostMemory(
        total_bytes=memory.total,
        available_bytes=memory.available,
        machine_available_bytes=memory.available,
        limited_by="host",
    )


def written_bytes(pid: int | Literal["self"] = "self") -> int | None:  # noqa: ARG001 -- the probe's signature
    """Not known here: what psutil counts includes pipes and terminals."""
    return None


def environment(pid: int) -> dict[str, str]:
    """The environment of a process; empty where it cannot be read."""
    try:
        return dict(psutil.Process(pid).environ())
    except psutil.Error:
        return {}


def oom_kills_on_host() -> int | None:
    """Nobody counts them here."""
    return None


def gpu_files_there() -> bool:
    """Not told by files here: torch has to be asked."""
    return True


def gpu_files_open(pid: int | None = None) -> str | None:
    """Unknown: workers are spawned here in any case."""
    del pid
    return None
