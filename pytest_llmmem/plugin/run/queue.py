"""Queue of isolated tests: a GPU, and under pytest-xdist the host's memory, is shared with other processes."""

import contextlib
import dataclasses
import getpass
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import pytest

from pytest_llmmem import probes
from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.vram import CONTEXT_BYTES
from pytest_llmmem.plugin.collect.planning import IsolatedTest
from pytest_llmmem.probes import devices
from pytest_llmmem.workers.memory_queue import QueueTicket, Reservation

_WORTH_SAYING_S: Final = 1.0
_TELL_AFTER_S: Final = 10.0
"""Someone may be looking, and wonder."""
_UNUSABLE: Final = (OSError, ValueError, TypeError)
"""Exceptions for a folder, or a list in it, that cannot be written or has another format."""


class MemoryQueue:
    """The place in the queue of the test that runs, or of its group: they hold their memory until the last one ends."""

    def __init__(self, config: pytest.Config, isolated: Mapping[pytest.Item, IsolatedTest]) -> None:
        self._folder = Path(tempfile.gettempdir(), f"pytest-llmmem-{_user()}")
        self._reporter = config.pluginmanager.get_plugin("terminalreporter")
        self._reservations: dict[str, dict[str, Reservation]] = {}
        self._ticket: QueueTicket | None = None
        self.notes: tuple[str, ...] = ()
        """Remarks for the reader about the wait."""
        shares_host = hasattr(config, "workerinput")
        for item, one in isolated.items():
            reservations = self._reservations.setdefault(_key(item, one), {})
            for reservation in reservations_of(_budgets(one), shares_host=shares_host):
                largest = max(
                    reservation, reservations.get(reservation.resource, reservation), key=lambda each: each.size_bytes
                )
                reservations[reservation.resource] = largest

    def begin(self, item: pytest.Item, isolated: IsolatedTest) -> None:
        """Wait until what the test, or its group, may use is free of other tests; at once when it is in already."""
        self.notes = ()
        reservations = self._reservations[_key(item, isolated)]
        if not reservations or self._ticket is not None:
            return
        began = time.monotonic()
        try:
            self._ticket = QueueTicket.take(self._folder, tuple(reservations.values()))
            if not self._ticket.wait(_TELL_AFTER_S):
                self._tell(f"llmmem: {item.nodeid} waits until other tests have left room for its budgets")
                self._ticket.wait()
        except _UNUSABLE as error:
            self.notes += (f"it did not wait for other tests to leave room for its budgets: {error}",)
        if (waited_s := time.monotonic() - began) > _WORTH_SAYING_S:
            self.notes += (f"it waited {waited_s:.1f} s until other tests had left room for its budgets",)

    def _tell(self, line: str) -> None:
        if self._reporter is not None and self._reporter.verbosity >= 0:
            self._reporter.write_line(line)

    def end(self) -> None:
        """The worker is gone, and with it what it held."""
        if self._ticket is not None:
            # the folder may be gone, with all places in it: someone has tidied up
            with contextlib.suppress(*_UNUSABLE):
                self._ticket.leave()
        self._ticket = None


def reservations_of(budgets: Iterable[Budget], *, shares_host: bool) -> tuple[Reservation, ...]:
    """Memory that a test may use and shares with others; ``shares_host``: whether they run beside it on purpose."""
    reservations = []
    for budget in budgets:
        if budget.kind == "max_vram":
            card = next(device for device in devices.find().devices if device.name == budget.device)
            reservations.append(
                Reservation(
                    resource=card.card,
                    size_bytes=budget.limit_bytes + (0 if budget.count == "device" else CONTEXT_BYTES),
                    capacity_bytes=card.total_bytes,
                )
            )
        elif budget.kind == "max_ram" and shares_host:
            total_bytes = probes.host_memory().total_bytes
            reservations.append(Reservation(resource="host", size_bytes=budget.limit_bytes, capacity_bytes=total_bytes))
    return tuple(reservations)


def _budgets(isolated: IsolatedTest) -> tuple[Budget, ...]:
    """Budgets of all ranks together: the budget of one rank times their number."""
    plan = isolated.plan
    if plan is None:
        return ()
    of_ranks = (
        dataclasses.replace(budget, limit_bytes=budget.limit_bytes * plan.ranks) if budget.kind == "max_ram" else budget
        for budget in plan.rank_budgets
    )
    return (*plan.budgets, *of_ranks)


def _user() -> str:
    if sys.platform == "win32":
        return getpass.getuser()
    return str(os.getuid())  # there, where a container's user has no name


def _key(item: pytest.Item, isolated: IsolatedTest) -> str:
    return isolated.group or item.nodeid
