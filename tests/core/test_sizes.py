"""Sizes round-trip, and refuse what nobody can have meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.sizes import UNITS, format_size, parse_size, unit_of


@given(number=st.integers(0, 10**6), unit=st.sampled_from(list(UNITS)), space=st.sampled_from(["", " ", "  "]))
def test_a_whole_number_of_any_unit_is_exact(number: int, unit: str, space: str) -> None:
    assert parse_size(f"{number}{space}{unit}") == number * UNITS[unit]


@given(size=st.integers(1, 10**15), unit=st.sampled_from(list(UNITS)))
def test_what_is_printed_reads_back_within_its_last_digit(size: int, unit: str) -> None:
    assert parse_size(format_size(size, unit)) == pytest.approx(size, rel=0.01, abs=0.01 * UNITS[unit])


@pytest.mark.parametrize("text", ["", "GB", "8GBB", "8 G B", "-1GB", "100 MBananas", "1e3", "nan", "8,5GB"])
def test_anything_else_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match="is not a memory size: write a number and a unit, like '8GB'"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "unit"), [("7.5 GiB", "GiB"), ("1.1 * weights + 200MB", "MB"), ("50% host", None), ("2 * weights", None)]
)
def test_a_limit_is_reported_in_the_unit_it_was_written_in(text: str, unit: str | None) -> None:
    assert unit_of(text) == unit


def test_sizes_for_people_have_about_three_digits() -> None:
    assert [format_size(n) for n in (0, 999, 1_500, 999_999, 2_660_000_000)] == [
        "0 B",
        "999 B",
        "1.50 kB",
        "1.00 MB",
        "2.66 GB",
    ]
