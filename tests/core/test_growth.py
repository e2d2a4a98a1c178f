"""What each call leaves: the mean of the calls, and how far it can be off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.growth import MemoryGrowth, check_calls

MB = 1_000_000
RESOLUTION = 64 * 1024


def growth(*held: int) -> MemoryGrowth:
    return MemoryGrowth(held_bytes=held)


def test_equal_steps_are_certain_but_for_what_no_page_shows() -> None:
    steady = growth(*range(0, 21 * MB, MB))

    assert steady.per_call_bytes == MB
    assert steady.error_bytes == -(-RESOLUTION // 20)
    assert steady.repeat == 20


@pytest.mark.parametrize("call", [1, 7, 20])
@pytest.mark.parametrize("jumps", [1, 2, 3])
def test_a_few_jumps_are_within_the_error(call: int, jumps: int) -> None:
    steps = [5 * MB * (call <= number < call + jumps) for number in range(1, 21)]
    held = [sum(steps[:number]) for number in range(21)]

    assert growth(*held).per_call_bytes <= growth(*held).error_bytes


def test_what_is_given_back_is_below_zero() -> None:
    assert growth(0, -MB, -2 * MB).per_call_bytes == -MB
    assert repr(growth(0, -MB, -2 * MB)).startswith("<MemoryGrowth -1.00 MB (±")


@given(st.lists(st.integers(0, 10**6), min_size=3, max_size=30))
def test_noise_around_a_level_is_within_the_error_or_nearly_nothing(noise: list[int]) -> None:
    level = growth(*(each - noise[0] for each in [*noise, noise[0]]))

    assert level.per_call_bytes == 0


def test_growth_on_gpus_is_unknown_where_none_is_used() -> None:
    assert growth(0, MB, 2 * MB).vram_per_call_bytes is None
    assert MemoryGrowth(held_bytes=(0, 0, 0), vram_held_bytes=(0, 3, 6)).vram_per_call_bytes == 3


@pytest.mark.parametrize(("repeat", "warmup"), [(2, 0), (20, 3)])
def test_two_calls_are_enough_and_a_warm_up_is_not_needed(repeat: int, warmup: int) -> None:
    check_calls(repeat, warmup)


@pytest.mark.parametrize(
    ("repeat", "warmup", "error"), [(1, 3, "repeat is 1"), ("5", 3, "repeat is '5'"), (20, -1, "warmup is -1")]
)
def test_numbers_of_calls_that_say_nothing_are_refused(repeat: object, warmup: object, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        check_calls(repeat, warmup)
