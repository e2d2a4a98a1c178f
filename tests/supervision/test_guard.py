"""Budgets beside what was used, and what they make the guard do."""

import pytest

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.core.terms import Terms
from pytest_llmmem.supervision.plan import JobPlan
from tests.supervision.simulated_job import MB, SimulatedJob, max_ram, reading

TERMS = Terms(host_bytes=1000 * MB)


class RecordingLimiter:
    """Stands in for the kernel's limit: it notes what it is told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held: list[int] = []

    def tick(self, held_bytes: int, reading: Reading) -> None:
        assert reading.used_bytes >= held_bytes
        self.held.append(held_bytes // MB)

    def oom_kills(self) -> int:
        return 0

    def killed_at_bytes(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing is held."""


def job_with(*budgets: Budget, reserve_mb: int = 0) -> SimulatedJob:
    job = SimulatedJob(JobPlan(terms=TERMS, budgets=budgets, reserve_bytes=reserve_mb * MB))
    job.begin(reading(100), "call")
    return job


def test_without_a_budget_of_memory_nothing_is_enforced() -> None:
    job = job_with(Budget(kind="max_disk", limit=parse_limit("1MB"), limit_bytes=MB, count="written"))

    assert job.guard.enforce(None) == ()  # type: ignore[arg-type]  # no worker is asked
    assert job.guard.limiter.name == "watch"


@pytest.mark.parametrize(("count", "held"), [("unreclaimable", [20, 80]), ("resident", [60, 120])])
def test_a_hard_limit_moves_with_what_the_worker_holds(count: str, held: list[int]) -> None:
    job = job_with(max_ram("200MB", count=count))
    job.guard.limiter = limiter = RecordingLimiter("rlimit")

    for anonymous in (120, 180):
        job.guard.move_limit(reading(anonymous, file=40))

    assert limiter.held == held


def test_of_a_share_of_the_machine_a_hard_limit_has_all_that_is_held() -> None:
    job = job_with(Budget(kind="max_ram", limit=parse_limit("20% host"), limit_bytes=200 * MB))
    job.guard.limiter = limiter = RecordingLimiter("rlimit")

    job.guard.move_limit(reading(130))

    assert limiter.held == [130]


@pytest.mark.parametrize(("enforced", "stops"), [("watch", False), ("cgroup", True)])
def test_what_a_control_group_would_kill_is_stopped_at_its_limit(enforced: str, *, stops: bool) -> None:
    job = job_with(max_ram("50MB"))
    job.guard.limiter = RecordingLimiter(enforced)

    assert [budget.stops_at_limit for budget in job.guard.budgets()] == [stops]


def test_a_share_of_the_machine_is_compared_with_all_that_is_held() -> None:
    job = job_with(Budget(kind="max_ram", limit=parse_limit("20% host"), limit_bytes=200 * MB))
    job.sample(reading(230))

    (budget,) = job.guard.budgets()
    assert (budget.used_bytes, budget.breached) == (230 * MB, True)


def test_resident_memory_counts_files_too() -> None:
    job = job_with(max_ram("150MB", count="resident"))
    job.sample(reading(140, file=120, mark=260))

    (budget,) = job.guard.budgets()
    assert (budget.used_bytes, budget.breached) == (160 * MB, True)
    assert job.guard.needs_library_pages(breached=False)
    assert not job.guard.needs_library_pages(breached=True)


def test_a_share_of_the_machine_may_count_all_that_is_resident() -> None:
    job = job_with(Budget(kind="max_ram", limit=parse_limit("20% host"), limit_bytes=200 * MB, count="resident"))
    job.sample(reading(150, file=120))

    (budget,) = job.guard.budgets()
    assert (budget.used_bytes, budget.breached) == (270 * MB, True)


def test_pages_of_libraries_matter_to_resident_budgets_alone() -> None:
    job = job_with(max_ram("10MB", on_breach="stop"))
    job.sample(reading(500))

    assert not job.guard.needs_library_pages(breached=False)


def test_the_machine_is_looked_at_when_asked() -> None:
    job = job_with(reserve_mb=10)

    assert job.guard.seen(at_machine=False).machine is None
    job.sample(reading(130))
    machine = job.guard.seen(at_machine=True).machine
    assert machine is not None
    assert (machine.reserve_bytes, machine.growth_bytes) == (10 * MB, 30 * MB)
    assert machine.available_bytes > 0
