"""A renamed test is recognized when exactly one baseline can be its own."""

import pytest

from pytest_llmmem.baselines.renamed_tests import moves, without_test
from tests.baselines.records import baseline


@pytest.mark.parametrize(
    ("gone", "new", "why"),
    [
        ({"a.py::test_x": baseline(500)}, "b.py::test_x", "the same function name, close numbers"),
        ({"a.py::test_x": baseline(500)}, "b.py::TestY::test_x", "the same function name, close numbers"),
        ({"a.py::test_x[poly]": baseline(9000)}, "a.py::test_x[polyglot]", "the same function name"),
        ({"a.py::test_x": baseline(510)}, "a.py::test_renamed", "close numbers"),
        (
            {"a.py::test_x[1]": baseline(9000), "a.py::test_x[2]": baseline(505)},
            "a.py::test_x[two]",
            "the same function name, close numbers",
        ),
    ],
)
def test_the_one_that_fits_is_offered(gone, new, why):
    (move,) = moves(gone, {new: baseline(500)})

    assert (move.old in gone, move.new, move.why) == (True, new, why)
    assert gone[move.old] == min(gone.values(), key=lambda each: each.peak_bytes)
    assert move.sentence().startswith(f"{new} has no baseline, and {move.old} has one and no test ({why})")


@pytest.mark.parametrize(
    "gone",
    [
        {},
        {"a.py::test_x": baseline(700)},
        {"a.py::test_x": baseline(500), "a.py::test_y": baseline(501)},
        {"a.py::test_x": baseline(500, file=900)},
        {"a.py::test_new[1]": baseline(9000), "a.py::test_new[2]": baseline(9000), "a.py::test_x": baseline(500)},
    ],
)
def test_nothing_is_offered_when_none_or_several_fit(gone):
    assert moves(gone, {"a.py::test_new": baseline(500)}) == ()


def test_a_baseline_is_not_offered_to_two_tests():
    gone = {"a.py::test_x[1]": baseline(500)}

    assert moves(gone, {"a.py::test_x[a]": baseline(500), "a.py::test_x[b]": baseline(500)}) == ()


def test_two_small_tests_are_not_close():
    assert moves({"a.py::test_x": baseline(3, error=4)}, {"a.py::test_y": baseline(6, error=4)}) == ()


def test_a_test_is_gone_when_its_file_is_or_was_collected_without_it():
    known = ["a.py::there", "a.py::there[another]", "a.py::gone", "b.py::not_asked_for", "c.py::file_gone"]
    collected = ["a.py::there", "a.py::new"]
    is_file = {"a.py", "b.py"}.__contains__

    assert without_test(known, collected, is_file, whole_files=True) == ("a.py::gone", "c.py::file_gone")
    assert without_test(known, collected, is_file, whole_files=False) == ("c.py::file_gone",)
