from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.record_parts import MarkRecord
from pytest_llmmem.core.timeline import POINTS, Point, Timeline

STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5 * POINTS)


@given(STEPS.map(tuple))
def test_a_timeline_keeps_its_peaks_its_order_and_its_bound(steps):
    timeline = Timeline()
    for number, (unreclaimable, file) in enumerate(steps):
        timeline.add(Point(number, unreclaimable, file))

    record = timeline.record()

    assert len(record.seconds) == len(record.unreclaimable_bytes) == len(record.file_bytes) <= POINTS
    assert list(record.seconds) == sorted(set(record.seconds))
    assert record.seconds[-1] == len(steps) - 1
    assert max(record.unreclaimable_bytes) == max(step[0] for step in steps)
    assert max(record.file_bytes) == max(step[1] for step in steps)


def test_many_samples_are_thinned_evenly():
    timeline = Timeline()
    for number in range(100_000):
        timeline.add(Point(number, number, 0))

    seconds = timeline.record().seconds

    gaps = [later - sooner for sooner, later in pairwise(seconds)]
    assert POINTS / 2 <= len(seconds) <= POINTS
    assert max(gaps) <= 2 * min(gaps[:-1])


def test_a_level_stretch_is_its_two_ends():
    timeline = Timeline()
    for number, held in enumerate([0, 5, 5, 5, 5, 5, 7]):
        timeline.add(Point(number, held, 0))

    assert timeline.record().seconds == (0, 1, 5, 6)


def test_marks_are_kept_in_order_up_to_the_same_bound():
    timeline = Timeline()
    for number in range(POINTS + 5):
        timeline.mark(MarkRecord(seconds=number, kind="shard", text=f"shard {number}"))

    marks = timeline.record().marks

    assert [mark.seconds for mark in marks] == list(range(POINTS))
