"""Two reports side by side: each test once, what grew first, and what else differs."""

import dataclasses

from pytest_llmmem.baselines.sessions import compare_sessions
from pytest_llmmem.baselines.tolerance import parse_tolerance
from tests.baselines.records import record, session

TOLERANCE = parse_tolerance("5% + 16MB")


def verdicts(old, new):
    sessions = compare_sessions(session(*old), session(*new), TOLERANCE)
    return [(each.nodeid, each.verdict) for each in sessions.comparisons]


def test_each_test_has_a_verdict_and_the_worst_is_first():
    old = [record("held", 100), record("grew", 100), record("grew most", 100), record("shrank", 900), record("gone", 1)]
    new = [record("new", 5), record("held", 101), record("grew", 200), record("grew most", 300), record("shrank", 100)]

    sessions = compare_sessions(session(*old), session(*new), TOLERANCE)

    assert [(each.nodeid, each.verdict) for each in sessions.comparisons] == [
        ("grew most", "grew"), ("grew", "grew"), ("shrank", "shrank"), ("new", "new"), ("gone", "gone"), ("held", "held"),
    ]  # fmt: skip
    assert sessions.summary() == "2 grew, 1 shrank, 1 new, 1 gone, 1 held"
    assert [row[-1] for row in sessions.rows()] == ["grew most", "grew", "shrank", "new", "gone"]
    assert [row[-1] for row in sessions.rows(verbosity=1)][-1] == "held"


def test_a_test_that_died_in_either_is_not_compared():
    died = record("died", 900, kind="crashed", signal="SIGSEGV", phase="call", outcome="failed")

    for old, new, why in (
        (died, record("died", 1), "before: crashed"),
        (record("died", 1), died, "crashed"),
        (died, died, "crashed"),
    ):
        (comparison,) = compare_sessions(session(old), session(new), TOLERANCE).comparisons
        assert (comparison.verdict, comparison.why) == ("incomparable", f"{why} SIGSEGV in call")


def test_several_records_of_a_test_are_its_runs():
    runs = [record("a", peak) for peak in (100, 900, 101)]

    assert verdicts(runs, [record("a", 102)]) == [("a", "held")]
    assert verdicts([record("a", 100)], [*runs, record("a", 900), record("a", 900)]) == [("a", "grew")]


def test_what_else_differs_is_noted():
    old, new = session(record(), malloc="default"), session(record(vram={"cuda:0": 1}), torch="2.14.0", malloc="steady")

    assert compare_sessions(old, new, TOLERANCE).notes == (
        "the machines differ: linux-x86_64 torch2.13 transformers5.23 cpu before, linux-x86_64 torch2.14 transformers5.23 cuda after",
        "--llm-malloc differs: default before, steady after",
    )
    assert compare_sessions(old, old, TOLERANCE).notes == ()


def test_nothing_to_compare_is_said():
    nothing = compare_sessions(session(), session(), TOLERANCE)

    assert (nothing.comparisons, nothing.summary()) == ((), "no tests")
    assert dataclasses.asdict(nothing)["notes"] == ()
