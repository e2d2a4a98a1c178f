"""Asks NVIDIA's driver what processes hold on each card, again and again, in a process of its own.

NVML opens the driver, which no fork survives: it is no library for a process that workers are forked from. Run as a
program, this module says which cards there are, and then answers questions, a line of JSON each. A question is a list of
process ids, the answer a ``Usage`` of each card: its most since the last answer, and now. It ends with its input.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

_INTERVAL_S: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One card's memory in bytes, under the names of ``DriverReading``.

    ``own`` is what the processes asked about hold, ``None`` where that is unknown. A driver lists no process, or others than
    ours, inside containers whose process ids are not the host's; and it lists them without sizes under Windows' own
    driver model. Where it lists others, and process ids are the host's, one that is not listed holds nothing.
    """

    used_bytes: int
    peak_used_bytes: int
    own_bytes: int | None
    peak_own_bytes: int | None


class Sampler:
    """Samples the cards of a driver; safe to be used by the thread that samples and the one that answers."""

    def __init__(self, nvml: Any, *, knows_our_pids: bool) -> None:
        """Take the module ``pynvml``, initialized; and whether process ids here are those that a driver knows."""
        self._nvml = nvml
        self._knows_our_pids = knows_our_pids
        self._handles = {card: handle for card, handle in _cards(nvml) if self._used_bytes(handle) is not None}
        self._pids: frozenset[int] = frozenset()
        self._usages: dict[str, Usage] = {}
        self._lock = threading.Lock()

    @property
    def cards(self) -> tuple[str, ...]:
        """Those that say how much of them is used, by the ids that torch has: without NVML's ``GPU-`` and ``MIG-``."""
        return tuple(self._handles)

    def sample(self) -> None:
        with self._lock:
            self._sample()

    def answer(self, pids: Iterable[int]) -> dict[str, Usage]:
        """The cards now, and their most since the last answer; from now on these processes are the ones asked about."""
        with self._lock:
            self._pids = frozenset(pids)
            self._sample()
            usages, self._usages = self._usages, {}
            return usages

    def _sample(self) -> None:
        for card, handle in self._handles.items():
            used_bytes, own_bytes = self._used_bytes(handle), self._own_bytes(handle)
            if used_bytes is None:
                continue
            before = self._usages.get(card)
            owns = [own for own in (own_bytes, before.peak_own_bytes if before else None) if own is not None]
            self._usages[card] = Usage(
                used_bytes=used_bytes,
                peak_used_bytes=max(used_bytes, before.peak_used_bytes if before else 0),
                own_bytes=own_bytes,
                peak_own_bytes=max(owns, default=None),
            )

    def _used_bytes(self, handle: Any) -> int | None:
        memory = _or_none(self._nvml, partial(self._nvml.nvmlDeviceGetMemoryInfo, handle))
        return None if memory is None else memory.used

    def _own_bytes(self, handle: Any) -> int | None:
        listed = _or_none(self._nvml, partial(self._nvml.nvmlDeviceGetComputeRunningProcesses, handle)) or []
        own = [process.usedGpuMemory for process in listed if process.pid in self._pids]
        if own:
            return None if None in own else sum(own)
        return 0 if listed and self._knows_our_pids else None


def _cards(nvml: Any) -> Iterator[tuple[str, Any]]:
    """Ids and handles: of a card that is cut into instances (MIG), those of its instances."""
    for index in range(nvml.nvmlDeviceGetCount()):
        card = _or_none(nvml, partial(nvml.nvmlDeviceGetHandleByIndex, index))  # it counts what we may not use, too
        if card is not None:
            for handle in _instances(nvml, card) or [card]:
                yield nvml.nvmlDeviceGetUUID(handle).removeprefix("GPU-").removeprefix("MIG-"), handle


def _instances(nvml: Any, card: Any) -> list[Any]:
    try:
        if nvml.nvmlDeviceGetMigMode(card)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return []
        slots = range(nvml.nvmlDeviceGetMaxMigDeviceCount(card))
    except nvml.NVMLError:
        return []  # a card that knows of no instances
    found = (_or_none(nvml, partial(nvml.nvmlDeviceGetMigDeviceHandleByIndex, card, slot)) for slot in slots)
    return [handle for handle in found if handle is not None]


def _pids_are_the_hosts() -> bool:
    """Whether we are in no container of process ids: the first namespace has a fixed number (``PROC_PID_INIT_INO``)."""
    try:
        return os.readlink("/proc/self/ns/pid") == "pid:[4026531836]"
    except OSError:
        return sys.platform != "linux"


def _or_none(nvml: Any, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except nvml.NVMLError:
        return None


def main() -> None:
    """Say which cards there are, or why none can be asked; then answer until the input ends."""
    try:
        import pynvml

        pynvml.nvmlInit()
        sampler = Sampler(pynvml, knows_our_pids=_pids_are_the_hosts())
    except Exception as error:  # noqa: BLE001 -- no module, no library, no driver, no permission: all are said alike
        _say({"why_none": str(error) or type(error).__name__})
        return
    _say({"cards": sampler.cards})
    ended = threading.Event()
    thread = threading.Thread(target=_sample_until, args=(sampler, ended))
    thread.start()
    try:
        for line in sys.stdin:
            answer = sampler.answer(json.loads(line))
            _say({card: asdict(usage) for card, usage in answer.items()})
    finally:
        ended.set()


def _sample_until(sampler: Sampler, ended: threading.Event) -> None:
    while not ended.wait(_INTERVAL_S):
        sampler.sample()


def _say(what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
