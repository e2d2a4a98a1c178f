"""A test and its GPUs: a budget of ``max_vram`` for the device that it names, or for each that is there."""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from typing import Final

import pytest

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.errors import DeviceError, MarkerError
from pytest_llmmem.core.terms import Terms
from pytest_llmmem.plugin.collect.loads import FITTING
from pytest_llmmem.plugin.collect.steps import with_step_terms
from pytest_llmmem.plugin.markers import MaxVram
from pytest_llmmem.plugin.settings import Settings
from pytest_llmmem.probes import devices, driver
from pytest_llmmem.supervision.plan import JobPlan

_LOADING: Final = frozenset({"llm_load", FITTING})
"""Fixtures that all of ours stand on which load."""


def vram_budgets(item: pytest.Item, settings: Settings, terms: Terms) -> tuple[Budget, ...]:
    """The budgets of a test's devices.

    Raises ``MarkerError`` for a limit that cannot be used, ``DeviceError`` where the test has no device to run on.
    """
    marker = MaxVram.of(item)
    limit = marker.limit if marker else settings.max_vram
    if limit is None:
        return ()
    where = "max_vram" if marker else "--llm-max-vram"
    if "host" in limit.terms:
        msg = f"{where}: {limit.text!r} is a share of the host: for memory of a GPU write '% device'"
        raise MarkerError(msg)
    by_driver = marker is not None and marker.count == "device"
    asked = (marker and marker.device) or settings.device
    chosen = _found(asked)
    if not chosen:
        if marker is None and not settings.require_gpu:
            return ()  # a budget of whatever is there, and nothing is
        msg = f"max_vram needs {asked or 'a GPU'}: {_why_missing()}"
        raise DeviceError(msg)
    unknown = [device.name for device in chosen if device.name not in driver.find().devices] if by_driver else []
    if unknown:
        why_none = driver.find().why_none or f"it says nothing of {', '.join(unknown)}"
        msg = f"max_vram counts what the driver says, and it cannot be asked: {why_none}"
        raise DeviceError(msg)
    terms = with_step_terms(terms, item, limit, device="cuda")
    try:
        limits = [dataclasses.replace(terms, device_bytes=device.total_bytes).bytes(limit) for device in chosen]
    except ValueError as error:
        msg = f"{where}: {error}"
        raise MarkerError(msg) from None
    return tuple(
        Budget(
            kind="max_vram",
            limit=limit,
            limit_bytes=limit_bytes,
            count=marker.count if marker else "reserved",
            on_breach=marker.on_breach if marker and marker.count == "device" else "finish",
            enforce=marker.enforce if marker else "watch",
            device=device.name,
        )
        for device, limit_bytes in zip(chosen, limits, strict=True)
    )


def check_device(item: pytest.Item, settings: Settings) -> None:
    """Raises ``DeviceError`` where a test's model is to go to a device that is not there."""
    if _goes_to_device(item, settings) and not _found(settings.device):
        msg = f"--llm-device={settings.device}: {_why_missing()}"
        raise DeviceError(msg)


def _goes_to_device(item: pytest.Item, settings: Settings) -> bool:
    return settings.device is not None and not _LOADING.isdisjoint(getattr(item, "fixturenames", ()))


def _found(name: str | None) -> list[devices.Device]:
    return [device for device in devices.find().devices if name in {None, device.name}]


def _why_missing() -> str:
    found = devices.find()
    there = ", ".join(device.name for device in found.devices)
    return f"there is {there} alone" if there else found.why_none


def caps_of(budgets: Iterable[Budget]) -> tuple[tuple[str, int], ...]:
    """Devices and bytes that the worker is to tell torch's allocator."""
    return tuple((budget.device, budget.limit_bytes) for budget in budgets if budget.device and budget.enforce == "cap")


def history_file(item: pytest.Item, budgets: Iterable[Budget], settings: Settings) -> str | None:
    """File for torch's memory history of a test that needs a GPU; ``None`` when it is not requested."""
    needs_gpu = any(budget.kind == "max_vram" for budget in budgets) or _goes_to_device(item, settings)
    if settings.vram_snapshot is None or not needs_gpu:
        return None
    name = re.sub(r"[^\w.-]+", "-", item.nodeid)
    return str(settings.vram_snapshot / f"{name}.pickle")


def history_notes(history_file: str | None) -> Iterator[str]:
    """Note about the history file for a report."""
    if history_file:
        there = os.path.exists(history_file)
        yield f"history of GPU memory: {history_file}" if there else "torch's history of GPU memory was not written"


def spread_workers(config: pytest.Config, settings: Settings, items: Iterable[pytest.Item]) -> None:
    """Let every pytest-xdist worker see another card first, as its ``cuda:0``; none is hidden.

    Only where tests need a GPU.
    """
    worker = re.search(r"\d+$", getattr(config, "workerinput", {}).get("workerid", ""))
    needed = settings.device or settings.max_vram or any(item.get_closest_marker(MaxVram.name) for item in items)
    cards = devices.visible_gpus() if worker and needed else ()
    if worker and len(cards) > 1:
        first = int(worker[0]) % len(cards)
        os.environ[devices.VISIBLE] = ",".join((*cards[first:], *cards[:first]))


def find_driver(plans: Iterable[JobPlan], settings: Settings) -> driver.Driver:
    """The driver that reports GPU memory: none, unless a test has a GPU budget or its model goes to a GPU."""
    wanted = settings.device or any(budget.kind == "max_vram" for plan in plans for budget in plan.budgets)
    return driver.find() if wanted else driver.NoDriver("no test needs a GPU")
