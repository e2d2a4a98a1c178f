"""A tolerance reads back as it was meant, and refuses what nobody can have meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.baselines.tolerance import DEFAULT, parse_tolerance

percents = st.decimals(0, 1000, places=2)
sizes = st.integers(0, 10**6)


@given(percent=percents, extra=sizes, space=st.sampled_from(["", " ", "  "]), before=st.integers(0, 10**12))
def test_share_and_size_add_up_whichever_comes_first(percent, extra, space, before):
    one = parse_tolerance(f"{percent}%{space}+{space}{extra}MB")
    other = parse_tolerance(f"{extra}{space}MB{space}+{percent}{space}%")

    assert one.bytes(before) == other.bytes(before) == int(before * percent / 100) + extra * 10**6


@given(percent=percents, before=st.integers(0, 10**12))
def test_either_may_stand_alone(percent, before):
    assert parse_tolerance(f"{percent}%").bytes(before) == int(before * percent / 100)
    assert parse_tolerance("1.5 MiB").bytes(before) == 3 * 2**19


@given(text=st.from_regex(r"\d{1,3}(\.\d)?% \+ \d{1,4}[MG]i?B", fullmatch=True), before=sizes, more=sizes)
def test_a_larger_number_is_never_allowed_less(text, before, more):
    assert parse_tolerance(text).bytes(before) <= parse_tolerance(text).bytes(before + more)


def test_the_default_can_be_read_and_is_reported_in_its_unit():
    assert parse_tolerance(DEFAULT).bytes(1000 * 10**6) == 66 * 10**6
    assert parse_tolerance(DEFAULT).unit == "MB"
    assert parse_tolerance("5%").unit is None


@pytest.mark.parametrize(
    ("given_", "complaint"),
    [
        ("5", "cannot read '5' without a unit or '%'"),
        ("", "cannot read nothing"),
        ("5% +", "cannot read nothing"),
        ("5% | 16MB", "cannot read '5% | 16MB'"),
        ("-5%", "cannot read '-5%'"),
        ("5% host", "cannot read '5% host'"),
        ("16MBananas", "cannot read '16MBananas'"),
        ("nan%", "cannot read 'nan%'"),
        ("5% + 3%", "two shares"),
        ("1MB + 5% + 3GB", "two sizes"),
        (0.05, "0.05 is not a tolerance"),
        (None, "None is not a tolerance"),
    ],
)
def test_anything_else_is_refused_with_what_is_accepted(given_, complaint):
    with pytest.raises(
        ValueError, match=r"is not a tolerance.*write a share, a size or both, like '5% \+ 16MB'"
    ) as error:
        parse_tolerance(given_)

    assert complaint in str(error.value)
