"""``max_vram`` of one test: a budget for each device that it names, or for every one that is there."""

from collections.abc import Callable, Iterable

import pytest

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.errors import DeviceError, MarkerError
from pytest_llmmem.plugin.markers import MaxVram
from pytest_llmmem.plugin.settings import Settings
from pytest_llmmem.probes import devices, torch_memory


def vram_budgets(item: pytest.Item, settings: Settings, resolve: Callable[..., int]) -> tuple[Budget, ...]:
    """The budgets of a test's devices.

    Raises ``MarkerError`` for a limit that cannot be used, ``DeviceError`` where the test has no device to run on.
    """
    marker = MaxVram.of(item)
    limit = marker.limit if marker else settings.max_vram
    if limit is None:
        return ()
    where = f"{'max_vram' if marker else '--llm-max-vram'} on {item.nodeid}"
    if "host" in limit.terms:
        msg = f"{where}: {limit.text!r} is a share of the host: for memory of a GPU write '% device'"
        raise MarkerError(msg)
    found = devices.find()
    asked = marker.device if marker else None
    chosen = [device for device in found.devices if asked in {None, device.name}]
    if not chosen:
        if marker is None and not settings.require_gpu:
            return ()  # a budget of whatever is there, and nothing is
        there = ", ".join(device.name for device in found.devices)
        reason = f"there is {there} alone" if there else found.why_none
        msg = f"max_vram needs {asked or 'a GPU'}: {reason}"
        raise DeviceError(msg)
    try:
        limits = [resolve(limit, device_bytes=device.total_bytes) for device in chosen]
    except ValueError as error:
        msg = f"{where}: {error}"
        raise MarkerError(msg) from None
    return tuple(
        Budget(
            kind="max_vram",
            limit=limit,
            limit_bytes=limit_bytes,
            count=marker.count if marker else "reserved",
            enforce=marker.enforce if marker else "watch",
            device=device.name,
        )
        for device, limit_bytes in zip(chosen, limits, strict=True)
    )


def caps_of(budgets: Iterable[Budget]) -> tuple[tuple[str, int], ...]:
    """Devices and bytes that the worker is to tell torch's allocator."""
    return tuple((budget.device, budget.limit_bytes) for budget in budgets if budget.device and budget.enforce == "cap")


class Caps:
    """In the worker: tells torch's allocator what the running test may take; an error of that is the test's own."""

    def __init__(self) -> None:
        self._capped: list[str] = []
        self._error: Exception | None = None

    def set(self, caps: Iterable[tuple[str, int]]) -> None:
        """Before the test's measurement begins: torch and the driver's context belong to its baseline."""
        self._error = None
        try:
            for device, room_bytes in caps:
                torch_memory.cap(device, room_bytes)
                self._capped.append(device)
        except Exception as error:  # noqa: BLE001 -- whatever a driver raises; the test fails with it
            self._error = error

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        if self._error is not None:
            raise self._error

    def lift(self) -> None:
        """The next test of a shared worker has a budget of its own."""
        while self._capped:
            torch_memory.uncap(self._capped.pop())
