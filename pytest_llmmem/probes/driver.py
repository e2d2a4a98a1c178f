"""Memory of processes on each GPU by the driver: torch's, the context's, and every other library's."""

import contextlib
import functools
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any, Final, Protocol, Self

from pytest_llmmem.core.vram import DriverReading
from pytest_llmmem.probes import devices
from pytest_llmmem.probes.devices import Device

_LOOK_S: Final = 0.001
_START_S: Final = 30.0
_ENDED: Final = "the process that asks it has ended"


class Driver(Protocol):
    """Answers how much memory processes hold on each device."""

    why_none: str
    """Why it knows nothing; empty when it does."""
    devices: frozenset[str]
    """The devices that it can answer for, as torch names them."""

    def ask(self, pids: Iterable[int], *, patience_s: float) -> tuple[DriverReading, ...]:
        """Memory of these processes together on each device, now and at most since the last answer.

        Nothing when none comes in time: it comes with a later call.
        """

    def close(self) -> None:
        """Ask no more."""


class NoDriver:
    """Null object for a machine without a GPU driver."""

    def __init__(self, why_none: str) -> None:
        self.why_none = why_none
        self.devices = frozenset[str]()

    def ask(self, pids: Iterable[int], *, patience_s: float) -> tuple[DriverReading, ...]:
        del pids, patience_s
        return ()

    def close(self) -> None:
        """Do nothing: no process was started."""


@dataclass(slots=True)
class Nvml:
    """NVIDIA's, through a process that samples it."""

    _process: "subprocess.Popen[str]"
    why_none: str = ""
    devices: frozenset[str] = frozenset()
    _names: Mapping[str, str] = field(default_factory=dict)
    """Torch's names of the devices, by the driver's."""
    _owes: bool = True
    """Whether an answer is to come."""

    @classmethod
    def start(cls, of_cuda: Iterable[Device]) -> Self:
        """Start the process, and wait until it says which of torch's devices it can sample."""
        names = {device.card: device.name for device in of_cuda}
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest_llmmem.probes.nvml_sampler"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for us: the sampler ends with its input
        )
        asked = cls(process)
        said = asked._hear(_START_S)
        asked._names = {card: names[card] for card in said.get("cards", ()) if card in names}
        asked.devices = frozenset(asked._names.values())
        if not asked.why_none and not asked._names:
            silent = "it does not answer" if asked._owes else "it does not list the devices that torch finds"
            asked.why_none = said.get("why_none", silent)
        return asked

    def ask(self, pids: Iterable[int], *, patience_s: float) -> tuple[DriverReading, ...]:
        if self.why_none:
            return ()
        if not self._owes:
            self._question(pids)
        said = self._hear(patience_s)
        return tuple(
            DriverReading(device=self._names[card], **usage) for card, usage in said.items() if card in self._names
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _question(self, pids: Iterable[int]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(list(pids)) + "\n")
            self._process.stdin.flush()
        except OSError:
            self.why_none = _ENDED
        self._owes = True

    def _hear(self, timeout_s: float) -> Mapping[str, Any]:
        """The sampler's answer; empty when it does not come in time."""
        if self.why_none:
            return {}
        assert self._process.stdout is not None
        if not _readable(self._process.stdout.fileno(), timeout_s):
            return {}
        self._owes = False
        line = self._process.stdout.readline()
        if not line:
            self.why_none = _ENDED
            return {}
        said: Mapping[str, Any] = json.loads(line)
        return said


def _readable(descriptor: int, timeout_s: float) -> bool:
    """Whether a pipe has data or is closed, within ``timeout_s`` seconds."""
    if sys.platform != "win32":
        return bool(wait([descriptor], timeout_s))
    import _winapi
    import msvcrt

    # Windows cannot wait for a pipe of this kind, only poll it
    handle, deadline = msvcrt.get_osfhandle(descriptor), time.monotonic() + timeout_s
    while True:
        try:
            if _winapi.PeekNamedPipe(handle, 0)[0]:
                return True
        except OSError:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_S)


@functools.cache
def find() -> Driver:
    """The driver of this session's devices. NVIDIA's alone can be asked."""
    of_cuda = [device for device in devices.find().devices if device.name.startswith("cuda")]
    return Nvml.start(of_cuda) if of_cuda else NoDriver("only NVIDIA's can, and there is no device of it")


def close() -> None:
    """End what ``find`` has started, if it has."""
    if find.cache_info().currsize:
        find().close()
        find.cache_clear()
