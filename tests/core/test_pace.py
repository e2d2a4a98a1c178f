"""How often a running test is looked at."""

from collections import Counter

from pytest_llmmem.core.pace import AMPLE_BYTES, Pace

INTERVAL_S = 0.002


def looks(pace: Pace, start_s: float, seconds: float) -> Counter:
    """The looks of a stretch of time in which nothing happens, by kind."""
    seen, now_s = Counter(), start_s
    while now_s < start_s + seconds:
        seen[pace.look(now_s)] += 1
        now_s += pace.wait_s(now_s)
    return seen


def test_a_busy_test_is_looked_at_every_interval_and_surveyed_every_50_ms() -> None:
    seen = looks(Pace(INTERVAL_S, 0), 0, 0.4)

    assert sum(seen.values()) == 200
    assert 7 <= seen["survey"] <= 8
    assert seen["reading"] >= 200 // 5 - 8  # a look that was due to be a reading may be a survey


def test_what_has_not_changed_for_half_a_second_is_looked_at_a_tenth_as_often() -> None:
    pace = Pace(INTERVAL_S, 0)
    pace.room(None, 0)

    assert pace.wait_s(0.49) == INTERVAL_S
    assert pace.wait_s(0.51) == 10 * INTERVAL_S
    assert looks(pace, 1, 1)["survey"] == 10
    pace.changed(2)
    assert pace.wait_s(2.1) == INTERVAL_S


def test_nobody_is_idle_near_a_limit() -> None:
    pace = Pace(INTERVAL_S, 0)

    pace.room(AMPLE_BYTES + 1, 0)
    assert pace.idle(1)
    pace.room(AMPLE_BYTES, 0)
    assert not pace.idle(1)


def test_a_limit_that_the_next_looks_may_cross_makes_each_one_full_and_ten_times_as_frequent() -> None:
    pace = Pace(INTERVAL_S, 0)
    pace.look(0)

    pace.room(1000, 0)
    pace.room(790, 0)
    assert pace.near  # four more steps like the last would cross it
    assert pace.wait_s(0) == INTERVAL_S / 10
    assert {pace.look(0) for _ in range(10)} == {"reading"}
    pace.room(789, 0)
    assert not pace.near
    pace.room(None, 0)
    assert not pace.near


def test_a_glance_is_judged_when_it_has_seen_a_quarter_of_the_room() -> None:
    pace = Pace(INTERVAL_S, 0)
    assert pace.is_judged_now(1)  # nothing is known of the room yet

    pace.room(1000, 5000)
    assert not pace.is_judged_now(5250)
    assert pace.is_judged_now(5251)
    pace.room(None, 0)
    assert not pace.is_judged_now(10**12)
