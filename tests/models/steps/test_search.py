"""The largest number that fits."""

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.models.steps.search import largest_within


@given(
    fixed=st.integers(0, 10**12),
    slopes=st.tuples(st.integers(0, 10**9), st.integers(1, 10**9)),
    limit=st.integers(0, 10**13),
    most=st.integers(1, 2**16),
)
def test_it_fits_and_the_next_one_does_not(fixed: int, slopes: tuple[int, int], limit: int, most: int) -> None:
    def peak_of(number: int) -> int:
        return max(fixed, fixed // 2 + slopes[0] * number, slopes[1] * number)

    found = largest_within(limit, peak_of, most=most)

    assert found == 0 or peak_of(found) <= limit
    assert found == most or peak_of(found + 1) > limit


def test_a_straight_line_takes_few_predictions() -> None:
    asked = []

    def peak_of(number: int) -> int:
        asked.append(number)
        return 10**9 + 3 * 10**7 * number

    assert largest_within(24 * 10**9, peak_of, most=2**16) == 766
    assert len(asked) <= 6
