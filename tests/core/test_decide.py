"""What is done about a running job, by a simulated clock."""

from dataclasses import replace

import pytest

from pytest_llmmem.core.decide import (
    GuardedBudget,
    Kill,
    Machine,
    Seen,
    State,
    Stop,
    TakeStack,
    decide,
    default_reserve_bytes,
    why_stop,
)
from pytest_llmmem.core.terms import Terms
from pytest_llmmem.supervision.plan import JobPlan
from tests.supervision.simulated_job import MB, SimulatedJob, max_ram, reading

STATE = State(started_s=100.0, timeout_s=5.0)
FULL = Machine(available_bytes=1 * MB, reserve_bytes=100 * MB, growth_bytes=200 * MB)


def used(size: int, *, stops: bool = False) -> Seen:
    return Seen(budgets=(GuardedBudget(used_bytes=size, limit_bytes=100, stops_at_limit=stops),))


@pytest.mark.parametrize(
    ("seen", "now_s", "action"),
    [
        (Seen(), 101, None),
        (used(100), 101, None),
        (used(101), 101, TakeStack("breach")),
        (used(101, stops=True), 101, Stop("over_budget")),
        (used(201), 101, Stop("over_budget")),
        (Seen(machine=FULL), 101, Stop("low_memory")),
        (Seen(), 105.1, Stop("timed_out")),
        (Seen(exceeds_baseline=True), 101, TakeStack("growth")),
        # the more urgent first
        (replace(used(201), machine=FULL), 106, Stop("over_budget")),
        (replace(used(101), exceeds_baseline=True), 101, TakeStack("breach")),
    ],
)
def test_the_most_urgent_thing_is_done(seen: Seen, now_s: float, action: object) -> None:
    assert decide(STATE, seen, now_s) == action


def test_the_stack_of_a_crossing_is_taken_once() -> None:
    seen = replace(used(101), exceeds_baseline=True)

    assert decide(replace(STATE, breached=True), seen, 101) == TakeStack("growth")
    assert decide(replace(STATE, breached=True, grown=True), seen, 101) is None


def test_a_worker_that_ignores_its_stop_is_killed_when_its_grace_is_over() -> None:
    stopped = replace(STATE, stopped="timed_out", kill_at_s=106.0)

    assert decide(stopped, used(10**6), 105.9) is None
    assert decide(stopped, Seen(), 106.1) == Kill()


def test_a_job_that_has_not_begun_can_only_time_out() -> None:
    job = SimulatedJob(JobPlan(terms=Terms(host_bytes=10**12), budgets=(max_ram("1MB"),), timeout_s=1.0))

    assert job.sample(reading(500), after_s=0.9) is None
    assert job.sample(reading(500), after_s=0.2) == Stop("timed_out")


def test_a_spike_between_two_samples_is_no_reason_to_stop_as_it_may_be_an_error() -> None:
    job = SimulatedJob(JobPlan(terms=Terms(host_bytes=10**12), budgets=(max_ram("50MB", on_breach="stop"),)))
    job.begin(reading(100))

    assert job.sample(reading(101, mark=400)) is None
    assert job.accounting.whole is not None
    assert job.accounting.whole.peak.peak_bytes == 300 * MB


def test_a_breach_is_judged_with_the_first_sample_that_is_certain_of_it() -> None:
    job = SimulatedJob(JobPlan(terms=Terms(host_bytes=10**12), budgets=(max_ram("50MB"),)))
    job.begin(reading(100))

    assert job.sample(reading(149)) is None
    assert job.sample(reading(151)) == TakeStack("breach")
    assert job.guard.breach_sentence() == "max_ram is 50.0 MB, used 51.0 MB unreclaimable: 1.0 MB over"
    assert job.sample(reading(210)) == Stop("over_budget")


def test_a_stop_that_comes_too_late_still_counts_what_was_used_meanwhile() -> None:
    job = SimulatedJob(JobPlan(terms=Terms(host_bytes=10**12), budgets=(max_ram("50MB", on_breach="stop"),)))
    job.begin(reading(100))
    assert job.sample(reading(160)) == Stop("over_budget")
    job.state = replace(job.state, stopped="over_budget", kill_at_s=1.0)

    job.sample(reading(500))  # it goes on growing until the signal arrives

    (verdict,) = job.accounting.verdicts(at_least_bytes=0, unfinished=True)
    assert (verdict.held, verdict.actual_bytes) == (False, 400 * MB)


def test_growth_beyond_the_baseline_counts_when_the_setup_does() -> None:
    plan = JobPlan(terms=Terms(host_bytes=10**12), baseline_allows_bytes=50 * MB, judges_setup=False)
    job = SimulatedJob(plan)
    job.begin(reading(100), "setup")
    assert job.sample(reading(300)) is None

    job.cross(reading(300), closes=1, opens=("call",))

    assert job.sample(reading(340)) is None
    assert job.sample(reading(360)) == TakeStack("growth")


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
