"""Looks and the kernel's mark together miss no spike, and take no file's pages for memory."""

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.readings import LifetimeMarks, Reading
from pytest_llmmem.core.segments import Segment

MB = 10**6


def reading(
    anonymous: int = 0, file: int = 0, *, library: int = 0, shmem: int = 0, mark: int | None = None, faults: int | None = 0
) -> Reading:  # fmt: skip
    """All in MB; with a mark it is a full look."""
    return Reading(
        anonymous_bytes=anonymous * MB,
        file_bytes=file * MB,
        library_bytes=library * MB,
        shmem_bytes=shmem * MB,
        mark_bytes=None if mark is None else mark * MB,
        faulted_bytes=None if faults is None else faults * MB,
    )


def unreclaimable(segment: Segment) -> tuple[float, float]:
    """Reported and certain, in MB."""
    return segment.unreclaimable.reported / MB, segment.unreclaimable.certain / MB


def resident(segment: Segment) -> tuple[float, float]:
    return segment.resident.reported / MB, segment.resident.certain / MB


def test_a_spike_that_no_look_saw_counts_and_is_not_certain() -> None:
    segment = Segment(reading(100, faults=None))

    segment.add(reading(110, mark=150, faults=None))

    assert unreclaimable(segment) == (150, 110)


def test_a_spike_that_page_faults_cannot_have_brought_does_not_count() -> None:
    segment = Segment(reading(100, faults=500))

    segment.add(reading(101, mark=170, faults=505))  # a file was mapped and unmapped: many pages with one fault

    assert unreclaimable(segment) == (105, 101)


def test_page_faults_between_the_two_numbers_of_one_look_are_not_missed() -> None:
    segment = Segment(reading(100, faults=500))

    # while this look went from the memory to the page faults, 60 MB came and went
    segment.add(reading(100, mark=100, faults=560))
    segment.add(reading(100, mark=160, faults=561))

    assert unreclaimable(segment) == (160, 100)


def test_page_faults_of_one_gap_do_not_excuse_those_of_another() -> None:
    segment = Segment(reading(100, faults=0))
    for look in range(1, 6):  # memory that comes and goes
        segment.add(reading(100, mark=100, faults=20 * look))

    segment.add(reading(100, mark=400, faults=110))

    assert unreclaimable(segment) == (140, 100)


def test_a_look_that_sees_the_spike_after_all_makes_it_certain() -> None:
    segment = Segment(reading(100))

    segment.add(reading(100, mark=150, faults=50))
    assert unreclaimable(segment) == (150, 100)
    segment.add(reading(150, mark=150, faults=60))
    assert unreclaimable(segment) == (150, 150)


def test_a_mark_that_the_looks_explain_adds_nothing() -> None:
    segment = Segment(reading(100, faults=None))

    segment.add(reading(100, file=500, mark=600, faults=None))
    segment.add(reading(120, mark=600, faults=None))

    assert unreclaimable(segment) == (120, 120)
    assert resident(segment) == (600, 600)


def test_an_early_spike_is_not_explained_by_a_later_look() -> None:
    segment = Segment(reading(100, faults=None))

    segment.add(reading(100, mark=500, faults=None))
    segment.add(reading(100, file=400, mark=500, faults=None))

    assert unreclaimable(segment) == (500, 100)


def test_the_kernels_last_word_has_no_page_faults_to_go_by() -> None:
    segment = Segment(reading(100))
    segment.add(reading(110, mark=110, faults=10))

    segment.add_mark(180 * MB)

    assert unreclaimable(segment) == (180, 110)


def test_a_last_word_below_what_was_seen_changes_nothing() -> None:
    segment = Segment(reading(100))
    segment.add(reading(110, mark=150, faults=50))

    segment.add_mark(140 * MB)

    assert unreclaimable(segment) == (150, 110)


def test_library_pages_are_in_no_peak() -> None:
    segment = Segment(reading(100, library=20))

    segment.add(reading(125, file=7, library=140, mark=290, faults=30))
    segment.add(reading(110, file=7, library=140, mark=290, faults=40))

    assert segment.file_bytes == 7 * MB
    assert unreclaimable(segment) == (143, 125)
    assert resident(segment) == (150, 150)


def test_library_pages_that_come_after_the_peak_do_not_hide_it() -> None:
    segment = Segment(reading(100))

    segment.add(reading(160, mark=160, faults=60))
    segment.add(reading(100, library=150, mark=250, faults=61))

    assert resident(segment) == (160, 160)


def test_two_peaks_that_were_not_at_once_are_not_added_up() -> None:
    segment = Segment(reading(100))

    segment.add(reading(100, file=500, mark=600))
    segment.add(reading(600, mark=620, faults=520))

    assert resident(segment) == (620, 620)


def test_a_file_that_was_mapped_and_unmapped_unseen_is_resident_all_the_same() -> None:
    segment = Segment(reading(100))

    segment.add(reading(100, mark=300, faults=5))

    assert (unreclaimable(segment), resident(segment)) == ((105, 100), (300, 300))
    assert segment.file_bytes == 195 * MB


Step = tuple[int, int, int, bool]


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 50), st.booleans()), min_size=1))
def test_the_resident_peak_is_off_by_no_more_than_the_library_pages_that_came(steps: list[Step]) -> None:
    segment = Segment(reading(0))
    mark = highest = library = 0
    for anonymous, file, came, is_seen in steps:
        library += came
        mark = max(mark, anonymous + file + library)
        highest = max(highest, anonymous + file)
        if is_seen:
            segment.add(reading(anonymous, file, library=library, mark=mark, faults=None))
    segment.add(reading(anonymous, file, library=library, mark=mark, faults=None))

    reported, certain = resident(segment)
    assert abs(reported - highest) <= library
    assert certain <= highest


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 500)), min_size=1))
def test_the_peak_is_never_below_any_look_nor_resident_below_the_mark(looks: list[tuple[int, int, int]]) -> None:
    segment = Segment(reading(0))
    highest = 0
    for anonymous, file, extra in looks:
        highest = max(highest, anonymous + file + extra)
        segment.add(reading(anonymous, file, mark=highest, faults=None))

    reported, certain = unreclaimable(segment)
    assert reported >= certain == max(anonymous for anonymous, _, _ in looks)
    assert segment.resident.reported == highest * MB


def test_memory_in_use_is_in_ram_or_in_swap_or_committed() -> None:
    parts = Reading(anonymous_bytes=1, file_bytes=2, library_bytes=4, shmem_bytes=8, swap_bytes=16, huge_bytes=32)

    assert parts.used_bytes == 63
    assert Reading(anonymous_bytes=5, committed_bytes=20).used_bytes == 20


# -- marks that the kernel never resets: Windows and macOS


def committed(commit: int, mark: int | None, resident: int = 10, resident_mark: int | None = None) -> Reading:
    """All in MB."""
    return Reading(
        anonymous_bytes=resident * MB,
        committed_bytes=commit * MB,
        lifetime=LifetimeMarks(
            unreclaimable_bytes=None if mark is None else mark * MB,
            resident_bytes=None if resident_mark is None else resident_mark * MB,
        ),
    )


def bounds(segment: Segment) -> tuple[float, float, float]:
    peak = segment.unreclaimable
    return peak.reported / MB, peak.certain / MB, peak.possible / MB


def test_a_mark_that_rose_is_the_peak_and_certain() -> None:
    segment = Segment(committed(20, mark=100))

    segment.add(committed(25, mark=160))

    assert bounds(segment) == (160, 160, 160)
    assert segment.unreclaimable.error == 0


def test_a_mark_that_did_not_rise_bounds_what_no_look_saw() -> None:
    segment = Segment(committed(20, mark=100))

    segment.add(committed(60, mark=100))

    assert bounds(segment) == (60, 60, 100)
    assert (segment.unreclaimable.excess, segment.unreclaimable.error) == (0, 40 * MB)


def test_a_mark_that_is_not_told_hides_no_error() -> None:
    segment = Segment(committed(20, mark=None))

    segment.add(committed(60, mark=None))

    assert bounds(segment) == (60, 60, 60)


def test_commit_that_was_never_touched_is_in_no_resident_peak() -> None:
    segment = Segment(committed(20, mark=20, resident=10, resident_mark=15))

    segment.add(committed(500, mark=500, resident=12, resident_mark=18))

    assert (segment.unreclaimable.reported, segment.resident.reported) == (500 * MB, 18 * MB)


def test_the_marks_of_a_process_that_died_close_its_last_stretch() -> None:
    segment = Segment(committed(20, mark=30, resident_mark=30))

    segment.add_lifetime(LifetimeMarks(unreclaimable_bytes=700 * MB, resident_bytes=600 * MB))

    assert (segment.unreclaimable.certain, segment.resident.certain) == (700 * MB, 600 * MB)
