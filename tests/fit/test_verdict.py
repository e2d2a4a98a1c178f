"""From a measured run to sizes."""

import pytest

from pytest_llmmem.fit.measuring import Limited, Measured
from pytest_llmmem.fit.verdict import complaints, verdict_of

MB = 10**6
GIB = 2**30
MAPPED = Measured(
    base_unreclaimable_bytes=200 * MB, base_resident_bytes=300 * MB, peak_bytes=100 * MB, peak_resident_bytes=5000 * MB,
    loaded_resident_bytes=5000 * MB, error_bytes=0, load_s=1.0, step_s=0.5,
)  # fmt: skip


def limited(**fields: object) -> Limited:
    return Limited(
        **{
            "limit_bytes": 100 * MB,
            "lived": True,
            "finished": True,
            "timeout_s": 120.0,
            "step_s": 0.5,
            "refaulted_bytes": 0,
            **fields,
        }
    )


def test_it_dies_below_what_cannot_be_dropped_and_is_slow_below_what_is_resident() -> None:
    verdict = verdict_of(MAPPED)

    assert verdict.growth_dies_bytes == 1.02 * 100 * MB + 16 * MB
    assert verdict.dies_below_bytes == 200 * MB + verdict.growth_dies_bytes
    assert verdict.slow_below_bytes == 300 * MB + 1.02 * 5000 * MB + 16 * MB
    assert verdict.request_bytes == verdict.slow_below_bytes < verdict.limit_bytes


@pytest.mark.parametrize(("size", "word"), [(0.5, "dies"), (1, "slow"), (4, "slow"), (5, "slow"), (8, "fits")])
def test_a_machine_keeps_a_reserve(size: float, word: str) -> None:
    assert verdict_of(MAPPED).of_machine(int(size * GIB)) == word


def test_runs_that_went_as_predicted_contradict_nothing() -> None:
    assert complaints(MAPPED, limited(step_s=9.0, refaulted_bytes=900 * MB), limited(refaulted_bytes=MB)) == []
    assert complaints(MAPPED, limited(finished=False, step_s=None), limited(refaulted_bytes=None)) == []
    assert complaints(MAPPED, limited(), limited(step_s=9.0)) == []


@pytest.mark.parametrize(
    ("smallest", "fast", "complaint"),
    [
        ({"lived": False}, {}, "it died in the limit that it was to live in"),
        ({}, {"finished": False, "step_s": None}, "it did not finish in the limit"),
        ({}, {"refaulted_bytes": 11 * MB}, "11.0 MB were read from the disk again where it was to run fast"),
        (
            {},
            {"step_s": 0.8, "refaulted_bytes": None},
            "a step took 0.80 s where it was to run fast, and 0.50 s without",
        ),
    ],
)
def test_what_a_run_contradicts_is_told(smallest: dict[str, object], fast: dict[str, object], complaint: str) -> None:
    (found,) = complaints(MAPPED, limited(**smallest), limited(**fast))

    assert found.startswith(complaint)
