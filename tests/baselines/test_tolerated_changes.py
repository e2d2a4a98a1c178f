"""What counts as a change: more than the tolerance, and more than the error of both measurements."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.baselines.measures import parse_only
from pytest_llmmem.baselines.tolerance import parse_tolerance
from pytest_llmmem.baselines.tolerated_changes import Change, changes_between, is_changed
from tests.baselines.records import MB, baseline, singles

TOLERANCE = parse_tolerance("5% + 16MB")
sizes = st.integers(0, 10**12)


def change(before: int, after: int, error: int = 0) -> Change:
    return Change(measure="file", before_bytes=before, after_bytes=after, error_bytes=error, tolerance=TOLERANCE)


@given(before=sizes, error=sizes, more=st.integers(1, 10**12))
def test_the_last_byte_decides(before, error, more):
    error = min(error, TOLERANCE.bytes(before))
    allowed = TOLERANCE.bytes(before) + error

    assert change(before, before + allowed, error).verdict == "held"
    assert change(before, before + allowed + more, error).verdict == "grew"
    assert change(before + allowed, before + allowed, error).verdict == "held"


@given(before=sizes, after=sizes, error=sizes, more=sizes)
def test_a_larger_error_never_makes_a_change(before, after, error, more):
    if change(before, after, error).verdict in {"held", "uncertain"}:
        assert change(before, after, error + more).verdict in {"held", "uncertain"}


@given(before=sizes, after=sizes, more=st.integers(1, 10**12))
def test_an_error_larger_than_the_tolerance_is_never_taken_for_no_change(before, after, more):
    assert change(before, after, TOLERANCE.bytes(before) + more).verdict != "held"


def test_both_errors_count():
    before, after = baseline(100, error=5), baseline(132, error=10)

    held = {each.measure: each.verdict for each in changes_between(before, after, TOLERANCE)}
    grew = {each.measure: each.verdict for each in changes_between(before, baseline(132), TOLERANCE)}

    assert held == {"unreclaimable": "held", "resident": "held", "file": "held"}
    assert grew == {"unreclaimable": "grew", "resident": "grew", "file": "held"}


def test_the_error_of_the_peak_is_no_excuse_for_files():
    before, after = baseline(100, file=10, error=10), baseline(100, file=45, error=10)

    assert [each.verdict for each in changes_between(before, after, TOLERANCE)] == ["held", "held", "grew"]


def test_a_device_that_only_one_knows_is_not_compared():
    before, after = baseline(vram={"cuda:0": 10, "cuda:1": 10}), baseline(vram={"cuda:1": 10, "cuda:2": 900})

    assert [each.measure for each in changes_between(before, after, TOLERANCE)][3:] == ["vram cuda:1"]
    assert is_changed(before, after, TOLERANCE)


@given(singles)
def test_what_is_equal_is_not_written_again(one):
    assert not is_changed(one, dataclasses.replace(one, commit="later"), TOLERANCE)
    assert is_changed(None, one, TOLERANCE)


def test_an_update_writes_what_only_files_show():
    assert is_changed(baseline(100, file=10), baseline(100, file=900), TOLERANCE)
    assert not is_changed(baseline(100, file=10), baseline(103, file=11), TOLERANCE)


def test_a_share_needs_something_before():
    assert [change(100 * MB, after * MB).share for after in (150, 100, 50)] == ["+50%", "0%", "-50%"]
    assert change(0, 5).share == ""


def test_only_takes_measures():
    assert parse_only(["vram", "resident"]) == ("vram", "resident")
    assert parse_only("file") == ("file",)


@pytest.mark.parametrize("value", [[], ["rss"], "unreclaimable,vram", None, 5, [["vram"]], {"vram"}])
def test_only_refuses_anything_else(value):
    with pytest.raises(
        ValueError, match="is not a list of measures: write some of unreclaimable, resident, file, vram, tensors"
    ):
        parse_only(value)


def test_an_update_keeps_a_number_that_is_no_better_known_now():
    before = baseline(100, error=100)

    assert not is_changed(before, baseline(120, error=100), TOLERANCE)
    assert is_changed(before, baseline(120, error=1), TOLERANCE)
