"""Baselines from records, and the laws of putting two files together."""

from hypothesis import given

from pytest_llmmem.baselines.values import Baseline, Baselines, finished, median_run, runs_by_test
from tests.baselines.records import MB, baseline, files, record, session, tests


@given(files, files)
def test_it_does_not_matter_which_file_is_merged_into_which(one, other):
    assert one.merged(other) == other.merged(one)


@given(files, files, files)
def test_three_files_may_be_merged_in_any_order(one, other, third):
    assert one.merged(other).merged(third) == one.merged(other.merged(third))


@given(files)
def test_merging_adds_nothing_to_what_is_there(one):
    assert one.merged(one) == one
    assert one.merged(Baselines()) == one == Baselines().merged(one)


@given(files, files)
def test_merging_loses_no_test(one, other):
    merged = one.merged(other)

    for file in (one, other):
        for key, known in file.machines.items():
            assert known.keys() <= merged.of(key).keys()


def test_of_two_measurements_the_later_is_kept():
    old, new = baseline(900, date="2026-10-03T08:00:00Z"), baseline(100, date="2026-10-04T07:00:00Z")
    one, other = (Baselines(machines={"m": {"t": each}}) for each in (old, new))

    assert one.merged(other).of("m")["t"] == new
    assert one.merged(Baselines(machines={"m": {"t": baseline(5)}})).of("m")["t"] == old


@given(files, tests)
def test_an_update_touches_its_own_machine_and_tests_only(file, measured):
    updated = file.updated("linux cpu", measured)

    assert updated.of("linux cpu") == {**file.of("linux cpu"), **measured}
    assert {key: updated.of(key) for key in ("linux cuda", "mac")} == {
        key: file.of(key) for key in ("linux cuda", "mac")
    }


def test_what_is_gone_is_taken_out_and_with_the_last_test_its_machine():
    file = Baselines().updated("m", {"a": baseline(1), "b": baseline(2)})

    assert file.updated("m", {"c": baseline(3)}, gone=["a"]).of("m").keys() == {"b", "c"}
    assert file.updated("m", {}, gone=["a", "b"]) == Baselines()


def test_a_baseline_has_the_numbers_of_the_middle_run():
    runs = [record(peak=peak, file=peak + 1, error=peak + 2, phases={"call": peak}) for peak in (300, 100, 200, 400)]

    made = Baseline.of(runs, commit="abc1234", date="2026-10-03T08:00:00Z")

    assert (made.peak_bytes, made.peak_file_bytes, made.error_bytes) == (200 * MB, 201 * MB, 202 * MB)
    assert (made.phases, made.runs, made.spread_bytes) == ({"call": 200 * MB}, 4, 300 * MB)
    assert made.origin == "abc1234, 2026-10-03"


def test_one_run_has_no_spread():
    assert (baseline(5).runs, baseline(5).spread_bytes, baseline(5).origin) == (1, None, "")
    assert median_run([record(peak=2), record(peak=1)]).ram.peak_bytes == MB


def test_of_a_phase_that_is_there_twice_the_larger_counts():
    twice = record(phases={"call": 5, "step": 9})
    twice = type(twice).from_json(
        twice.to_json() | {"phases": [*twice.to_json()["phases"], {"name": "step", "peak_bytes": 1, "seconds": 1}]}
    )

    assert Baseline.of([twice]).phases == {"call": 5 * MB, "step": 9 * MB}


def test_a_record_counts_only_when_the_test_ran_to_its_end():
    assert finished(record())
    assert finished(record(kind="over_budget", outcome="failed"))
    assert not finished(record(kind="over_budget", phase="call", outcome="failed"))
    assert not finished(record(outcome="skipped"))
    assert not finished(type(record()).from_json(record().to_json() | {"ram": None}))


def test_runs_are_found_by_their_test_over_sessions_and_within():
    one, other = record("a", peak=1), record("b", peak=2)

    assert runs_by_test([session(one, other, one), session(other)]) == {"a": (one, one), "b": (other, other)}
