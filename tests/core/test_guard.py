"""When a test is stopped, and when it may finish."""

from pytest_llmmem.core.guard import GuardedBudget, Machine, default_reserve_bytes, why_stop


def guarded(used: int, *, stops: bool = False) -> GuardedBudget:
    return GuardedBudget(used_bytes=used, limit_bytes=100, stops_at_limit=stops)


def test_a_test_over_its_budget_may_finish_until_twice_the_budget() -> None:
    assert guarded(101).breached
    assert why_stop((guarded(200),), None, elapsed_s=1, timeout_s=None) is None
    assert why_stop((guarded(201),), None, elapsed_s=1, timeout_s=None) == "over_budget"


def test_what_lies_ahead_is_the_limit_and_beyond_it_the_stop() -> None:
    assert [guarded(used).ahead_bytes for used in (60, 100, 101, 150)] == [40, 0, 99, 50]
    assert [guarded(used, stops=True).ahead_bytes for used in (60, 101)] == [40, -1]


def test_a_test_that_stops_does_so_right_over_its_budget() -> None:
    assert why_stop((guarded(100, stops=True),), None, elapsed_s=1, timeout_s=None) is None
    assert why_stop((guarded(101, stops=True),), None, elapsed_s=1, timeout_s=None) == "over_budget"


def test_the_reserve_stops_the_test_that_eats_it_and_no_innocent_one() -> None:
    eater = Machine(available_bytes=400, reserve_bytes=500, growth_bytes=101)
    innocent = Machine(available_bytes=400, reserve_bytes=500, growth_bytes=99)

    assert why_stop((), eater, elapsed_s=1, timeout_s=None) == "low_memory"
    assert why_stop((), innocent, elapsed_s=1, timeout_s=None) is None


def test_time_runs_out() -> None:
    assert why_stop((), None, elapsed_s=1.1, timeout_s=1) == "timed_out"
    assert why_stop((), None, elapsed_s=1e9, timeout_s=None) is None


def test_the_reserve_is_the_larger_of_two() -> None:
    assert default_reserve_bytes(2**30) == 512 * 2**20
    assert default_reserve_bytes(100 * 2**30) == 5 * 2**30
