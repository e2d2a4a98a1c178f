"""Samples and marks make peaks that miss no spike and count nothing twice."""

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.readings import NOTHING, Meter, Reading, Tree

MB = 10**6


def reading(anonymous: int = 0, file: int = 0, *, shmem: int = 0, mark: int | None = None) -> Reading:
    return Reading(
        anonymous_bytes=anonymous * MB,
        file_bytes=file * MB,
        shmem_bytes=shmem * MB,
        mark_bytes=None if mark is None else mark * MB,
    )


def meter_at(base: Reading) -> Meter:
    meter = Meter()
    meter.boundary(base)
    meter.open("test", base, NOTHING)
    return meter


def test_growth_is_above_the_baseline() -> None:
    meter = meter_at(reading(100, 50))

    meter.sample(reading(300, 80, mark=380))

    peak = meter.close().peak
    assert (peak.baseline_bytes, peak.peak_bytes, peak.peak_resident_bytes, peak.peak_file_bytes) == (
        150 * MB, 200 * MB, 230 * MB, 30 * MB,
    )  # fmt: skip
    assert peak.absolute_peak_bytes == 380 * MB


def test_a_spike_that_no_sample_saw_counts_as_unreclaimable_and_as_the_error() -> None:
    meter = meter_at(reading(100))

    meter.sample(reading(110, mark=150))

    peak = meter.close().peak
    assert (peak.peak_bytes, peak.error_bytes) == (50 * MB, 40 * MB)


def test_a_mark_that_the_samples_explain_adds_nothing() -> None:
    meter = meter_at(reading(100))

    meter.sample(reading(100, file=500, mark=600))
    meter.sample(reading(120, mark=600))

    peak = meter.close().peak
    assert (peak.peak_bytes, peak.peak_resident_bytes, peak.error_bytes) == (20 * MB, 500 * MB, 0)


def test_an_early_spike_is_not_explained_by_a_later_sample() -> None:
    meter = meter_at(reading(100))

    meter.sample(reading(100, mark=500))
    meter.sample(reading(100, file=400, mark=500))

    assert meter.close().peak.peak_bytes == 400 * MB


def test_a_reset_mark_keeps_one_phases_spike_out_of_the_next() -> None:
    meter = meter_at(reading(100))
    meter.open("setup", reading(100), NOTHING)
    meter.boundary(reading(100, mark=700))
    setup = meter.close().peak
    meter.open("call", reading(100), NOTHING)
    meter.boundary(reading(130, mark=130))
    call = meter.close().peak

    assert (setup.peak_bytes, call.peak_bytes) == (600 * MB, 30 * MB)
    assert meter.close().peak.peak_bytes == 600 * MB


def test_copied_pages_are_added_to_every_open_window() -> None:
    meter = meter_at(reading(100))
    meter.open("call", reading(100), NOTHING)

    meter.boundary(reading(100, mark=100), copied_bytes=100 * MB, uncertain_bytes=2 * MB)

    call, test = meter.close().peak, meter.close().peak
    assert (call.peak_bytes, test.peak_bytes, test.error_bytes) == (100 * MB, 100 * MB, 2 * MB)


def test_a_tree_counts_above_what_it_shared_from_the_start() -> None:
    meter = Meter()
    meter.open("test", reading(100), Tree(unreclaimable_bytes=500 * MB, resident_bytes=900 * MB))

    meter.sample_tree(Tree(unreclaimable_bytes=820 * MB, resident_bytes=1300 * MB))

    peak = meter.close().peak
    assert (peak.peak_bytes, peak.peak_resident_bytes, peak.absolute_peak_bytes) == (320 * MB, 400 * MB, 500 * MB)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 500)), min_size=1))
def test_the_peak_is_never_below_any_sample_nor_resident_below_the_mark(looks: list[tuple[int, int, int]]) -> None:
    meter = meter_at(reading(0))
    highest = 0
    for anonymous, file, extra in looks:
        highest = max(highest, anonymous + file + extra)
        meter.sample(reading(anonymous, file, mark=highest))

    peak = meter.close().peak
    assert peak.peak_bytes >= max(anonymous for anonymous, _, _ in looks) * MB
    assert peak.peak_resident_bytes == highest * MB
    assert peak.peak_bytes - peak.error_bytes <= max(anonymous for anonymous, _, _ in looks) * MB
