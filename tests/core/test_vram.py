"""Peaks of GPU memory are growth above what the stretch began with; a share of a device compares all of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.budgets import Budget, Count
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.vram import CONTEXT_BYTES, DriverReading, VramReading, VramWindow, parse_device

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


@pytest.mark.parametrize(("given", "device"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("xpu", "xpu:0")])
def test_a_device_without_a_number_is_the_first(given: str, device: str) -> None:
    assert parse_device(given) == device


@pytest.mark.parametrize("given", ["gpu0", "cuda:", "cpu", 0, None])
def test_anything_else_is_no_device(given: object) -> None:
    with pytest.raises(ValueError, match="is not a device: write it as torch does, 'cuda:0' or 'xpu:1'"):
        parse_device(given)


# -- by the driver

GB = 10**9


def driver(used: int, own: int | None = None, *, device: str = "cuda:0", peak: int = 0) -> DriverReading:
    """``peak`` is how far the highest use since the last answer was above the one now."""
    peak_own = None if own is None else own + peak
    return DriverReading(
        device=device, used_bytes=used, peak_used_bytes=used + peak, own_bytes=own, peak_own_bytes=peak_own
    )


def budget(limit: str = "1GB", count: Count = "device", device: str = "cuda:0") -> Budget:
    return Budget(kind="max_vram", limit=parse_limit(limit), limit_bytes=1, count=count, device=device)


def test_a_driver_that_lists_the_process_counts_its_own_growth() -> None:
    window = VramWindow.opened([], [driver(9 * GB, own=GB)])

    window.add_driver([driver(12 * GB, own=2 * GB, peak=GB)])
    window.add_driver([driver(20 * GB, own=GB)])  # another process took what was left

    (peak,) = window.peaks
    assert (peak.peak_device_bytes, peak.device_method) == (2 * GB, "process")
    assert window.used_bytes(budget()) == 2 * GB
    assert window.used_bytes(budget("50% device")) == 3 * GB


def test_a_driver_that_lists_no_process_counts_the_growth_of_all() -> None:
    window = VramWindow.opened([], [driver(9 * GB)])

    window.add_driver([driver(12 * GB)])
    window.add_driver([driver(10 * GB)])

    (peak,) = window.peaks
    assert (peak.peak_device_bytes, peak.device_method) == (3 * GB, "device")
    assert window.used_bytes(budget("50% device")) == 3 * GB


def test_a_device_that_was_not_there_at_the_beginning_counts_from_its_first_reading() -> None:
    window = VramWindow.opened([])

    window.add_driver([driver(9 * GB), driver(0, own=2 * GB, device="cuda:1")])

    assert [peak.peak_device_bytes for peak in window.peaks] == [0, 2 * GB]


def test_once_the_process_was_listed_the_use_of_others_does_not_count() -> None:
    window = VramWindow.opened([], [driver(0)])

    window.add_driver([driver(5 * GB)])
    window.add_driver([driver(5 * GB, own=GB)])
    window.add_driver([driver(30 * GB)])

    (peak,) = window.peaks
    assert (peak.peak_device_bytes, peak.device_method) == (GB, "process")
    assert window.held_bytes([driver(30 * GB)]) == 0


def test_what_is_held_now_is_the_processes_own_or_the_growth_of_the_device() -> None:
    window = VramWindow.opened([], [driver(GB, own=GB), driver(4 * GB, device="cuda:1")])

    now = [driver(9 * GB, own=3 * GB), driver(5 * GB, device="cuda:1"), driver(7 * GB, device="cuda:2")]

    assert window.held_bytes(now) == 3 * GB
    assert window.held_bytes([driver(8 * GB, own=2 * GB, device="cuda:2")]) == 2 * GB
    assert window.held_bytes([driver(0, own=0)]) == 0


def test_while_a_test_runs_the_driver_stands_in_for_torch_less_what_a_context_needs() -> None:
    window = VramWindow.opened([], [driver(0, own=0)])
    assert window.seen_bytes(budget(count="reserved")) == 0

    window.add_driver([driver(5 * GB, own=5 * GB)])

    assert window.seen_bytes(budget(count="device")) == 5 * GB
    assert window.seen_bytes(budget(count="reserved")) == 5 * GB - CONTEXT_BYTES


def test_while_a_test_runs_memory_of_unknown_processes_is_not_blamed_on_it() -> None:
    window = VramWindow.opened([], [driver(0)])

    window.add_driver([driver(5 * GB)])

    assert window.seen_bytes(budget(count="reserved")) == 0
