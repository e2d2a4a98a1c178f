"""Peaks of GPU memory are growth above what the stretch began with; a share of a device compares all of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.budgets import Budget, Count
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.vram import VramReading, VramWindow

SIZES = st.integers(0, 100)


@st.composite
def readings(draw: st.DrawFn, device: str = "cuda:0") -> VramReading:
    allocated, reserved = sorted((draw(SIZES), draw(SIZES)))
    return VramReading(
        device=device,
        allocated_bytes=allocated,
        reserved_bytes=reserved,
        peak_allocated_bytes=allocated + draw(SIZES),
        peak_reserved_bytes=reserved + draw(SIZES),
        peak_fragmented_bytes=draw(SIZES),
    )


@given(base=readings(), later=st.lists(readings(), min_size=1))
def test_a_peak_is_the_highest_reading_above_the_base(base: VramReading, later: list[VramReading]) -> None:
    window = VramWindow.opened([base])

    for reading in later:
        window.add([reading])

    (peak,) = window.peaks
    assert peak.peak_reserved_bytes == max(0, *(one.peak_reserved_bytes - base.reserved_bytes for one in later))
    assert peak.peak_allocated_bytes == max(0, *(one.peak_allocated_bytes - base.allocated_bytes for one in later))
    assert peak.peak_fragmented_bytes == max(one.peak_fragmented_bytes for one in later)
    assert peak.baseline_bytes == base.reserved_bytes


@pytest.mark.parametrize(
    ("limit", "count", "used"),
    [
        ("1GB", "reserved", 30),
        ("1GB", "allocated", 20),
        ("50% device", "reserved", 80),
        ("50% device", "allocated", 60),
    ],
)
def test_a_budget_compares_growth_and_a_share_all_of_it(limit: str, count: Count, used: int) -> None:
    window = VramWindow.opened([reading(allocated=40, reserved=50, peaks=(40, 50))])
    window.add([reading(allocated=40, reserved=80, peaks=(60, 80)), reading("cuda:1", peaks=(900, 900))])

    budget = Budget(kind="max_vram", limit=parse_limit(limit), limit_bytes=1, count=count, device="cuda:0")

    assert window.used_bytes(budget) == used


def test_a_device_that_was_not_used_counts_as_nothing() -> None:
    budget = Budget(kind="max_vram", limit=parse_limit("1GB"), limit_bytes=1, count="reserved", device="cuda:0")

    assert VramWindow.opened([]).used_bytes(budget) == 0


def reading(device: str = "cuda:0", *, allocated: int = 0, reserved: int = 0, peaks: tuple[int, int]) -> VramReading:
    return VramReading(
        device=device,
        allocated_bytes=allocated,
        reserved_bytes=reserved,
        peak_allocated_bytes=peaks[0],
        peak_reserved_bytes=peaks[1],
    )
