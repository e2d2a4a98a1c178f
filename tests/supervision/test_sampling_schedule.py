"""How often a running test is looked at."""

from collections import Counter

from pytest_llmmem.supervision.sampling_schedule import AMPLE_BYTES, SamplingSchedule

INTERVAL_S = 0.002


def looks(pace: SamplingSchedule, start_s: float, seconds: float) -> Counter:
    """The looks of a stretch of time in which nothing happens, by kind."""
    seen, now_s = Counter(), start_s
    while now_s < start_s + seconds:
        seen[pace.next_sample(now_s)] += 1
        now_s += pace.wait_s(now_s)
    return seen


def test_a_busy_test_is_looked_at_every_interval_and_surveyed_every_50_ms() -> None:
    seen = looks(SamplingSchedule(INTERVAL_S, 0), 0, 0.4)

    assert sum(seen.values()) == 200
    assert 7 <= seen["tree"] <= 8
    assert seen["full"] >= 200 // 5 - 8  # a full sample that is due may be one of the tree


def test_what_has_not_changed_for_half_a_second_is_looked_at_a_tenth_as_often() -> None:
    pace = SamplingSchedule(INTERVAL_S, 0)
    pace.room(None, 0, 0)

    assert pace.wait_s(0.49) == INTERVAL_S
    assert pace.wait_s(0.51) == 10 * INTERVAL_S
    assert looks(pace, 1, 1)["tree"] == 10
    pace.changed(2)
    assert pace.wait_s(2.1) == INTERVAL_S


def test_nobody_is_idle_near_a_limit() -> None:
    pace = SamplingSchedule(INTERVAL_S, 0)

    pace.room(AMPLE_BYTES + 1, 0, 0)
    assert pace.idle(1)
    pace.room(AMPLE_BYTES, 0, 0)
    assert not pace.idle(1)


def test_a_limit_that_would_be_reached_within_8_ms_makes_each_look_full_and_ten_times_as_frequent() -> None:
    pace = SamplingSchedule(INTERVAL_S, 0)
    pace.next_sample(0)

    pace.room(900, 0, 0)
    pace.room(801, 100, 0.001)
    assert not pace.near  # at 100 bytes a millisecond, 801 are left
    pace.room(700, 201, 0.002)
    assert pace.near
    assert pace.wait_s(0) == INTERVAL_S / 10
    assert {pace.next_sample(0) for _ in range(10)} == {"full"}


def test_memory_that_comes_in_pieces_is_near_its_limit_between_two_of_them() -> None:
    pace = SamplingSchedule(INTERVAL_S, 0)
    pace.room(400, 0, 0)
    pace.room(300, 100, 0.001)
    assert pace.near

    pace.room(300, 100, 0.0012)
    assert pace.near
    for next_sample in range(10):
        pace.room(300, 100, 0.002 + next_sample / 1000)
    assert not pace.near


def test_without_a_limit_nothing_is_near() -> None:
    pace = SamplingSchedule(INTERVAL_S, 0)
    pace.room(None, 0, 0)
    pace.room(None, 10**12, 0.001)

    assert not pace.near
    assert not pace.is_judged_now(10**13, 0.002)


def test_a_glance_is_judged_when_the_limit_is_near_by_what_it_has_seen() -> None:
    pace = SamplingSchedule(INTERVAL_S, 0)
    assert pace.is_judged_now(1, 0)  # nothing is known of the room yet

    pace.room(1000, 5000, 1)
    assert not pace.is_judged_now(5190, 1.002)  # 95 bytes a millisecond, 810 left
    assert pace.is_judged_now(5210, 1.002)
