"""Measured spread becomes a tolerance that covers it, and budgets that the runs would have held."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.baselines.suggest import HEADER, Noise, Spread, limit_for, noise_of, suggest, tightest
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.record_parts import ModelRecord
from tests.baselines.records import MB, record

MODEL = ModelRecord(source="m", load="default", weights_bytes=2664 * MB, largest_shard_bytes=996 * MB, parameters=1)
spreads = st.builds(
    lambda low, up, down: Spread(low_bytes=low, median_bytes=low + down, high_bytes=low + down + up),
    st.integers(0, 10**11), st.integers(0, 10**9), st.integers(0, 10**9),
)  # fmt: skip


def noise(nodeid: str, *peaks: float, **known: object) -> Noise:
    found = noise_of([record(nodeid, peak, **known) for peak in peaks])
    assert found is not None
    return found


@given(st.lists(spreads, min_size=1, max_size=8))
def test_a_tolerance_covers_twice_the_spread_of_each(measured):
    tolerance = tightest(measured)

    assert all(tolerance.bytes(spread.median_bytes) >= 2 * spread.bytes for spread in measured)
    assert tolerance.percent >= 1
    assert tolerance.extra_bytes >= 4 * MB


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        ([(100, 100, 100)], "1% + 4MB"),
        ([(2600, 2660, 2700)], "7% + 16MB"),
        ([(10, 12, 17), (26000, 26100, 26200)], "2% + 16MB"),
        ([(10, 12, 20)], "1% + 20MB"),
        ([(0, 0, 3)], "1% + 6MB"),
    ],
)
def test_the_tolerance_is_the_one_that_allows_least(runs, text):
    suggestion = suggest(noise(str(n), *peaks) for n, peaks in enumerate(runs))

    assert suggestion.tolerance.text == text
    assert (
        next(suggestion.lines()) == f'--llm-tolerance="{text}" covers twice the spread, and the errors, of every test'
    )


def test_twice_the_tolerance_is_more_than_it_and_the_errors_of_two_runs():
    suggestion = suggest([noise("a", 100, 100, error=11)])

    assert 22 * MB <= suggestion.tolerance.bytes(100 * MB) <= 24 * MB


def test_one_run_has_no_spread_and_the_default_is_named_as_such():
    suggestion = suggest([noise("a", 100)])

    assert list(suggestion.lines()) == [
        '--llm-tolerance="5% + 16MB" is the default: no test has a spread to go by; run with --llm-repeat=3'
    ]
    assert list(suggestion.rows()) == [
        ("1", "100 MB", "unknown", "", "unreclaimable", '@pytest.mark.max_ram("130MB")', "a")
    ]


def test_a_random_test_does_not_spoil_the_tolerance_of_the_others():
    suggestion = suggest([noise("steady", 1000, 1001, 1002), noise("random", 318, 400, 627)])

    assert suggestion.tolerance.text == "1% + 4MB"
    assert list(suggestion.lines()) == [
        '--llm-tolerance="1% + 4MB" covers twice the spread, and the errors, of every test but those below',
        'random used 318 MB to 627 MB unreclaimable: try --llm-malloc=steady, or @pytest.mark.llm_baseline(tolerance="620MB")',
    ]
    assert [dict(zip(HEADER, row, strict=True))["budget"] for row in suggestion.rows()] == [
        '@pytest.mark.max_ram("940MB")', '@pytest.mark.max_ram("1.1GB")',
    ]  # fmt: skip


def test_vram_has_a_spread_and_a_budget_of_its_own():
    runs = noise_of([record("a", 100, vram={"cuda:0": vram, "cuda:1": 0}) for vram in (2000, 2000, 2010)])
    assert runs is not None

    suggestion = suggest([runs])

    assert [row[1:3] + row[4:6] for row in suggestion.rows()] == [
        ("100 MB", "0 B", "unreclaimable", '@pytest.mark.max_ram("110MB")'),
        ("2.00 GB", "10.0 MB", "vram cuda:0", '@pytest.mark.max_vram("2.1GB", device="cuda:0")'),
        ("0 B", "0 B", "vram cuda:1", ""),
    ]


@given(needed=st.integers(1000, 10**13))
def test_a_budget_holds_what_is_needed_and_not_much_more(needed):
    limit = parse_limit(limit_for(needed, None)).bytes({})

    assert needed <= limit <= needed * 1.1 + 1


@pytest.mark.parametrize(
    ("needed", "limit"),
    [
        (40, "40MB"),
        (430, "0.1 * weights + 200MB"),
        (2800, "weights + 200MB"),
        (3000, "weights + shard + 200MB"),
        (5400, "2 * weights + 200MB"),
        (12000, "12GB"),
    ],
)
def test_a_budget_is_in_the_checkpoints_terms_where_a_promise_fits(needed, limit):
    assert limit_for(needed * MB, MODEL) == limit


def test_runs_that_died_tell_nothing():
    died = record("a", 900, kind="crashed", phase="call", outcome="failed")
    found = noise_of([record("a", 100), died, record("a", 104)])

    assert found is not None
    assert (found.runs, found.spreads["unreclaimable"].bytes) == (2, 4 * MB)
    assert noise_of([died]) is None
