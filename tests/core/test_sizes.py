"""Sizes round-trip, and refuse what nobody can have meant."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.sizes import UNITS, format_beside, format_size, parse_seconds, parse_size, unit_of


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
    ("text", "unit"),
    [
        ("7.5 GiB", "GiB"),
        ("1.1 * weights + 200MB", "MB"),
        ("50% host", None),
        ("2 * weights", None),
        ("2 * weights + 1kb", "kB"),
        ("9000B", None),
    ],
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


BYTES = st.integers(0, 10**15)


@given(limit=BYTES, used=BYTES | st.integers(-5000, 5000), unit=st.sampled_from([None, *UNITS]))
def test_sizes_beside_each_other_can_be_subtracted_and_never_contradict_the_bytes(
    limit: int, used: int, unit: str | None
) -> None:
    used = used if used > 5000 else max(0, limit + used)  # often next to the limit
    printed = format_beside(limit, used, unit)
    numbers = [Decimal(text.split()[0]) for text in printed]
    units = {text.split()[1] for text in printed}

    assert units == {unit} if unit else len(units) == 1
    assert numbers[2] == abs(numbers[1] - numbers[0])
    assert (numbers[1] > numbers[0]) is (used > limit)
    assert (numbers[1] == numbers[0]) is (used == limit)
    size = UNITS[units.pop()]
    as_bytes = [float(number * size) for number in numbers]
    assert as_bytes[:2] == pytest.approx([limit, used], rel=0.005, abs=0.005 * size)
    assert as_bytes[2] == pytest.approx(abs(used - limit), rel=0.1)


def test_sizes_beside_each_other_have_no_more_digits_than_they_need() -> None:
    gigabyte = 10**9
    assert format_beside(2 * gigabyte, 5 * gigabyte, "GB") == ("2.00 GB", "5.00 GB", "3.00 GB")
    assert format_beside(2 * gigabyte, 2_002_900_000, "GB") == ("2.0000 GB", "2.0029 GB", "0.0029 GB")
    assert format_beside(300_000_000, 199_749_632, "MB") == ("300 MB", "200 MB", "100 MB")
    assert format_beside(100, 103) == ("100 B", "103 B", "3 B")
    assert format_beside(0, 0, "MB") == ("0 MB", "0 MB", "0 MB")


@pytest.mark.parametrize(("value", "seconds"), [(30, 30.0), ("0.5", 0.5), (1e-3, 0.001)])
def test_a_timeout_is_a_number_above_zero(value: object, seconds: float) -> None:
    assert parse_seconds(value) == seconds


@pytest.mark.parametrize("value", [0, -1, "soon", None, [], True, float("nan"), "inf"])
def test_any_other_timeout_is_refused_with_what_is_accepted(value: object) -> None:
    with pytest.raises(ValueError, match=r"is not a timeout: write seconds above zero, like 30 or 0\.5"):
        parse_seconds(value)
