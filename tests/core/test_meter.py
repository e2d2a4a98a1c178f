"""Boundaries make peaks of nested windows that count nothing twice."""

from pytest_llmmem.core.meter import NONE_COPIED, Copied, Meter
from pytest_llmmem.core.outcomes import Exit
from pytest_llmmem.core.readings import NOTHING, LifetimeMarks, Reading, Tree
from tests.core.test_readings import MB, committed, reading


def meter_at(base: Reading) -> Meter:
    meter = Meter()
    meter.boundary(base, NONE_COPIED)
    meter.open("test", base, NOTHING)
    return meter


def copied(size: float, *, error: float = 0, counts: int = 0) -> Copied:
    return Copied(round(size * MB), round(error * MB), counts=counts)


def test_growth_is_above_the_baseline() -> None:
    meter = meter_at(reading(100, 50))

    meter.sample(reading(300, 80, mark=380, faults=200))

    peak = meter.close().peak
    assert (peak.baseline_bytes, peak.peak_bytes, peak.peak_resident_bytes, peak.peak_file_bytes) == (
        150 * MB, 200 * MB, 230 * MB, 30 * MB,
    )  # fmt: skip
    assert peak.absolute_peak_bytes == 380 * MB
    assert (peak.error_bytes, peak.resident_error_bytes) == (0, 0)


def test_the_marks_own_bound_is_in_both_errors() -> None:
    meter = Meter(mark_error_bytes=MB)
    meter.boundary(reading(100), NONE_COPIED)
    meter.open("test", reading(100), NOTHING)

    peak = meter.close().peak

    assert (peak.error_bytes, peak.resident_error_bytes) == (MB, MB)


def test_a_reset_mark_keeps_one_phases_spike_out_of_the_next() -> None:
    meter = meter_at(reading(100))
    meter.open("setup", reading(100), NOTHING)
    meter.boundary(reading(100, mark=700, faults=600), NONE_COPIED)
    setup = meter.close().peak
    meter.open("call", reading(100, faults=600), NOTHING)
    meter.boundary(reading(130, mark=130, faults=630), NONE_COPIED)
    call = meter.close().peak

    assert (setup.peak_bytes, call.peak_bytes) == (600 * MB, 30 * MB)
    assert meter.close().peak.peak_bytes == 600 * MB


def test_what_is_not_over_yet_is_known_as_far_as_it_is_seen() -> None:
    meter = meter_at(reading(100))

    meter.sample(reading(100, file=60, mark=160))
    assert meter.windows[0].peak.peak_resident_bytes == 60 * MB
    # the next look also counts whose pages they are
    meter.sample(reading(100, library=60, mark=160))
    assert meter.windows[0].peak.peak_resident_bytes == 0


def test_copied_pages_are_added_to_every_open_window() -> None:
    meter = meter_at(reading(100))
    meter.open("call", reading(100), NOTHING)

    meter.boundary(reading(100, mark=100), copied(100, error=2))

    call, test = meter.close().peak, meter.close().peak
    assert (call.peak_bytes, test.peak_bytes, test.error_bytes) == (100 * MB, 100 * MB, 2 * MB)
    assert test.peak_resident_bytes == 100 * MB


def test_pages_that_are_copied_later_do_not_add_to_an_earlier_peak() -> None:
    meter = meter_at(reading(100))
    meter.open("setup", reading(100), NOTHING)
    meter.boundary(reading(100, mark=600, faults=500), NONE_COPIED)
    meter.close()
    meter.open("call", reading(100, faults=500), NOTHING)
    meter.boundary(reading(100, mark=100, faults=950), copied(450))

    assert meter.close().peak.peak_bytes == 450 * MB
    assert meter.close().peak.peak_bytes == 500 * MB


def test_pages_that_were_copied_before_a_window_are_not_its_own() -> None:
    meter = Meter()
    meter.boundary(reading(100), copied(30, error=1))
    meter.open("test", reading(100), NOTHING)

    meter.boundary(reading(110, mark=110, faults=10), copied(35, error=0.5, counts=1))

    peak = meter.close().peak
    assert (peak.peak_bytes, peak.error_bytes) == (15 * MB, 1.5 * MB)


def test_what_is_uncertain_since_one_count_is_so_in_both_estimates() -> None:
    meter = Meter()
    meter.boundary(reading(100), copied(31, error=1, counts=1))
    meter.open("test", reading(100), NOTHING)

    meter.boundary(reading(100, mark=100), copied(33, error=3, counts=1))

    peak = meter.close().peak
    assert (peak.peak_bytes, peak.error_bytes) == (2 * MB, 2 * MB)


def test_many_boundaries_make_no_larger_error_than_one() -> None:
    meter = meter_at(reading(100))

    for _ in range(100):
        meter.boundary(reading(100, mark=100), copied(1, error=1))

    assert meter.close().peak.error_bytes == MB


def test_a_tree_counts_above_what_it_shared_from_the_start() -> None:
    meter = Meter()
    meter.boundary(reading(100), NONE_COPIED)
    meter.open("test", reading(100), Tree(unreclaimable_bytes=500 * MB, resident_bytes=900 * MB))

    meter.sample_tree(Tree(unreclaimable_bytes=820 * MB, resident_bytes=1300 * MB))

    peak = meter.close().peak
    assert (peak.peak_bytes, peak.peak_resident_bytes, peak.absolute_peak_bytes) == (320 * MB, 400 * MB, 500 * MB)


def test_a_mark_that_the_kernel_told_after_death_is_in_every_open_window() -> None:
    meter = meter_at(reading(100))
    meter.open("call", reading(100), NOTHING)

    meter.sample_exit(Exit(signal="SIGKILL", peak_resident_bytes=180 * MB))

    assert [window.peak.peak_resident_bytes for window in meter.windows] == [80 * MB, 80 * MB]


def test_marks_that_are_never_reset_close_the_account_of_a_process_that_died() -> None:
    meter = meter_at(committed(20, mark=30))

    meter.sample_exit(Exit(code=0, lifetime=LifetimeMarks(unreclaimable_bytes=700 * MB)))

    assert meter.close().peak.peak_bytes == 680 * MB


def test_memory_that_is_kept_has_its_copies_and_their_error() -> None:
    meter = meter_at(reading(100))
    meter.boundary(reading(130), copied(7, error=2))

    window = meter.close()

    assert (window.kept_bytes(reading(130)), window.kept_error_bytes) == (37 * MB, 2 * MB)
    assert window.kept_bytes(reading(60)) == -33 * MB


def test_of_committed_memory_what_was_touched_is_resident() -> None:
    meter = meter_at(committed(20, mark=20, resident=10))

    peak = meter.close().peak

    assert (peak.baseline_bytes, peak.peak_resident_bytes) == (10 * MB, 0)


def test_a_peak_is_that_of_the_tree_unless_the_process_alone_held_more() -> None:
    meter = meter_at(reading(100))
    meter.sample_tree(Tree(unreclaimable_bytes=80 * MB, resident_bytes=80 * MB))

    meter.sample(reading(180))
    assert meter.windows[0].is_peak_of_tree
    meter.sample(reading(181))
    assert not meter.windows[0].is_peak_of_tree
