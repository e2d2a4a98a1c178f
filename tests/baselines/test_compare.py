"""What a test says beside its baseline: the verdict, one sentence, and the part that changed."""

import pytest

from pytest_llmmem.baselines.compare import HEADER, Comparison, compare
from pytest_llmmem.baselines.machine import Match
from pytest_llmmem.baselines.tolerance import parse_tolerance
from tests.baselines.records import baseline, record

TOLERANCE = parse_tolerance("5% + 16MB")
PHASES = {"setup": 22, "load": 17, "call": 2600}


def test_a_test_that_grew_says_before_after_difference_and_where():
    before = baseline(2670, file=20, phases=PHASES | {"teardown": 0}, commit="abc1234", date="2026-10-03T08:00:00Z")
    after = record(
        peak=3100, file=900, error=2, phases={"setup": 450, "load": 447, "call": 2605, "generate": 40, "teardown": 0}
    )

    comparison = compare(before, after, TOLERANCE, machine=Match(key="linux-x86_64 torch2.13 transformers5.23 cpu"))

    assert comparison.verdict == "grew"
    assert comparison.sentence() == (
        "baseline is 2670 MB (abc1234), used 3100 MB unreclaimable: 430 MB more, most of it in load (tolerance 5% + 16MB)"
    )
    assert list(comparison.details()) == [
        "baseline  abc1234, 2026-10-03; linux-x86_64 torch2.13 transformers5.23 cpu",
        "grew      unreclaimable 2670 MB to 3100 MB (+430 MB)",
        "grew      resident 2690 MB to 4000 MB (+1310 MB)",
        "grew      file 20.0 MB to 900.0 MB (+880.0 MB)",
        "phases    setup 22.0 MB to 450.0 MB (+428.0 MB), load 17.0 MB to 447.0 MB (+430.0 MB), call 2600.0 MB to 2605.0 MB (+5.0 MB), generate 40.0 MB (new)",
        "allowed   150 MB by 5% + 16MB, 2.00 MB for the error of measuring",
        "accept    with --llm-baseline-update",
    ]
    assert list(comparison.rows()) == [
        ("grew", "2670 MB", "3100 MB", "+430 MB", "+16%", "unreclaimable", "load", "tests/test_x.py::test_a")
    ]


def test_a_test_that_shrank_is_offered_as_an_update():
    comparison = compare(baseline(3100), record(peak=2670), parse_tolerance("5%"))

    assert comparison.verdict == "shrank"
    assert comparison.sentence() == (
        "baseline is 3100 MB, used 2670 MB unreclaimable: 430 MB less (tolerance 5%); --llm-baseline-update keeps the gain"
    )


@pytest.mark.parametrize(("tolerance", "before"), [("5%", "2670 MB"), ("1GiB", "2.49 GiB"), ("5% + 16MB", "2670 MB")])
def test_a_sentence_is_in_one_unit(tolerance, before):
    sentence = compare(baseline(2670), record(peak=2670 + 1500), parse_tolerance(tolerance)).sentence()

    unit = "GB" if tolerance == "5%" else before.split()[1]
    assert sentence.count(f" {unit}") == 3


def test_a_test_without_a_baseline_is_a_message():
    comparison = compare(None, record(peak=2670), TOLERANCE)

    assert comparison.verdict == "new"
    assert comparison.sentence() == "no baseline yet: used 2.67 GB unreclaimable; --llm-baseline-update writes one"
    assert list(comparison.details()) == []


def test_a_borrowed_baseline_is_named_as_such():
    there = Match(key="linux-x86_64 torch2.12 transformers5.23 cpu", differences="torch 2.12, here 2.13")

    comparison = compare(baseline(100, commit="abc1234"), record(peak=200), TOLERANCE, machine=there)

    assert comparison.sentence().startswith("baseline is 100 MB (abc1234, borrowed), used 200 MB")
    assert next(comparison.details()) == f"baseline  abc1234; {there}"


def test_vram_decides_too_and_no_phase_of_ram_explains_it():
    before = baseline(100, vram={"cuda:0": 2000, "cuda:1": 500}, phases={"call": 10})
    after = record(peak=110, vram={"cuda:0": 2900, "cuda:1": 500}, phases={"call": 2000})

    comparison = compare(before, after, TOLERANCE)

    assert comparison.sentence() == ("baseline is 2000 MB, used 2900 MB vram cuda:0: 900 MB more (tolerance 5% + 16MB)")
    assert [row[0:2] + row[5:7] for row in comparison.rows()] == [
        ("grew", "2000 MB", "vram cuda:0", ""),
        ("held", "100 MB", "unreclaimable", ""),
        ("held", "500 MB", "vram cuda:1", ""),
    ]


def test_growth_of_one_measure_outweighs_what_another_gained():
    before, after = baseline(5000, vram={"cuda:0": 100}), record(peak=10, vram={"cuda:0": 200})

    assert compare(before, after, TOLERANCE).verdict == "grew"
    assert "vram cuda:0" in compare(before, after, TOLERANCE).sentence()


@pytest.mark.parametrize(
    ("only", "verdict"),
    [(["unreclaimable"], "held"), (["file"], "grew"), (["resident", "vram"], "grew"), (["vram"], "shrank")],
)
def test_only_says_which_measures_decide(only, verdict):
    before = baseline(100, file=10, vram={"cuda:0": 500})

    assert compare(before, record(peak=100, file=900, vram={"cuda:0": 100}), TOLERANCE, only=only).verdict == verdict


def test_measures_that_were_not_taken_are_held():
    comparison = compare(baseline(100), record(peak=900), TOLERANCE, only=["vram"])

    assert (comparison.verdict, comparison.sentence()) == ("held", "none of vram was measured both times")


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (record(peak=900, kind="crashed", signal="SIGSEGV", phase="call", outcome="failed"), "crashed SIGSEGV in call"),
        (record(peak=900, kind="raised", phase="setup", outcome="error"), "raised in setup"),
        (record(peak=900, kind="over_budget", phase="call", outcome="failed"), "over budget in call"),
        (record(peak=1, outcome="skipped"), "skipped"),
    ],
)
def test_a_test_that_did_not_end_is_not_compared(after, why):
    comparison = compare(baseline(100), after, TOLERANCE)

    assert (comparison.verdict, comparison.why) == ("incomparable", why)
    assert comparison.sentence() == f"not compared with its baseline: {why}"
    assert list(comparison.rows()) == [
        ("incomparable", "100 MB", "", "", "", "unreclaimable", "", f"tests/test_x.py::test_a  [{why}]")
    ]


def test_a_test_that_broke_its_budget_and_ended_is_compared():
    after = record(peak=900, kind="over_budget", outcome="failed")

    assert compare(baseline(100), after, TOLERANCE).verdict == "grew"


def test_a_load_that_another_test_paid_for_is_no_change():
    alone, shared = {"setup": 2700, "load": 2690, "call": 30}, {"setup": 1, "call": 30}

    for before, after in ((alone, shared), (shared, alone)):
        comparison = compare(
            baseline(max(before.values()), phases=before), record(peak=max(after.values()), phases=after), TOLERANCE
        )
        assert comparison.verdict == "incomparable"
        assert "only one of the two loaded the model itself" in comparison.sentence()
        assert [row[0] for row in comparison.rows()] == ["incomparable"]


def test_of_several_runs_the_middle_one_counts():
    runs = [record(peak=peak) for peak in (900, 101, 100)]

    assert compare(baseline(100), runs, TOLERANCE).verdict == "held"
    assert compare(baseline(100), [*runs, record(peak=900), record(peak=900)], TOLERANCE).verdict == "grew"


def test_a_phase_is_named_only_when_it_accounts_for_most():
    before = baseline(1000, phases={"setup": 100, "call": 100})

    small = compare(before, record(peak=1500, phases={"setup": 200, "call": 150}), TOLERANCE)
    gained = compare(before, record(peak=500, phases={"setup": 100, "call": 5, "new": 900}), parse_tolerance("0%"))

    assert (small.part, gained.part) == ("", "")
    assert compare(before, record(peak=920, phases={"setup": 20, "call": 100}), parse_tolerance("1%")).part == "setup"


def test_the_spread_of_the_baselines_runs_is_shown():
    before = type(baseline()).of([record(peak=peak) for peak in (90, 100, 120)])

    assert "spread    30.0 MB between the baseline's 3 runs" in list(
        compare(before, record(peak=99), TOLERANCE).details()
    )


def test_every_row_has_a_cell_for_each_heading():
    gone = Comparison(nodeid="x", verdict="gone", tolerance=TOLERANCE, before=baseline(5))
    new = compare(None, record(), TOLERANCE)

    assert gone.sentence() == "it has a baseline and is no more"
    assert {len(row) for each in (gone, new) for row in each.rows()} == {len(HEADER)}


def test_what_the_error_of_measuring_hides_is_not_judged():
    comparison = compare(baseline(100, error=5), record(peak=200, error=90), TOLERANCE)

    assert comparison.verdict == "uncertain"
    assert comparison.sentence() == (
        "not judged: baseline is 100 MB, used 200 MB unreclaimable, and the two can be off by 95.0 MB: "
        "more than the tolerance 5% + 16MB"
    )


def test_growth_is_certain_where_it_is_larger_than_tolerance_and_error():
    assert compare(baseline(100, error=5), record(peak=300, error=90), TOLERANCE).verdict == "grew"


def test_one_measure_that_grew_decides_beside_one_that_is_uncertain():
    before = baseline(100, error=50, vram={"cuda:0": 100})

    assert compare(before, record(peak=100, vram={"cuda:0": 900}), TOLERANCE).verdict == "grew"
