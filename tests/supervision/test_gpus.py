"""What is said of a driver that gives no memory back, or no answer."""

from dataclasses import dataclass

import pytest

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.vram import DriverReading, VramWindow
from pytest_llmmem.supervision import gpus as cards
from pytest_llmmem.supervision.gpus import Gpus

BUDGET = Budget(kind="max_vram", limit=parse_limit("1GB"), limit_bytes=10**9, count="device", device="cuda:0")


@dataclass
class Answers:
    """A driver that says what is held, one number after the other."""

    held_bytes: list[int]
    why_none: str = ""
    devices: frozenset[str] = frozenset()

    def ask(self, pids: object, *, patience_s: float) -> tuple[DriverReading, ...]:
        held = self.held_bytes.pop(0) if len(self.held_bytes) > 1 else self.held_bytes[0]
        return (reading(held),)

    def close(self) -> None: ...


def reading(held: int) -> DriverReading:
    return DriverReading(device="cuda:0", used_bytes=held, peak_used_bytes=held, own_bytes=held, peak_own_bytes=held)


@pytest.fixture
def window() -> VramWindow:
    """A test that held 5 GB."""
    opened = VramWindow.opened([], [reading(0)])
    opened.add_driver([reading(5 * 10**9)])
    return opened


def test_memory_that_comes_back_late_is_waited_for(window: VramWindow) -> None:
    driver = Answers([5 * 10**9, 10**9, 0])

    assert Gpus(driver, 1).wait_back(window) == ()
    assert driver.held_bytes == [0]


def test_memory_that_does_not_come_back_is_told(window: VramWindow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_BACK_S", 0.1)

    (note,) = Gpus(Answers([5 * 10**9]), 1).wait_back(window)

    assert note.startswith("5.00 GB of GPU memory were not back")


def test_a_test_that_used_no_device_waits_for_nothing() -> None:
    assert Gpus(Answers([5 * 10**9]), 1).wait_back(VramWindow.opened([])) == ()


def test_a_driver_that_went_silent_is_told_where_a_budget_needs_it() -> None:
    silent = Gpus(Answers([0], why_none="the process that asks it has ended"), 1)

    (note,) = silent.silence_notes([BUDGET])
    assert note.endswith("could not be asked: the process that asks it has ended")
    assert silent.silence_notes([]) == ()
    assert Gpus(Answers([0]), 1).silence_notes([BUDGET]) == ()
