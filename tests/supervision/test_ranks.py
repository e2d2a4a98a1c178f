"""Several workers that run one job at once: who failed, who is ended for it, and what they hold together."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.endings import Exit
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.meter import Copied
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.probes import open_memory, shared_once
from pytest_llmmem.probes.driver import NoDriver
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.ranks import MeasuredRanks, RankGroup, RankJob, measure_ranks
from pytest_llmmem.workers.messages import Boundary, Finished, Opening, Payload
from tests.supervision.scripted_worker import ScriptedWorker, SupervisedJob
from tests.supervision.simulated_job import MB, TERMS, max_ram, reading

Make = Callable[..., "Ranks"]


class Ranks:
    """The real group of two scripted ranks, on one simulated clock."""

    def __init__(self, folder: Path, plan: JobPlan, pids: tuple[int, ...] = ()) -> None:
        self.now_s = 0.0
        self.workers = [ScriptedWorker(folder / str(rank), *pids[rank : rank + 1]) for rank in range(2)]
        self.jobs = [
            SupervisedJob(worker, plan.of_rank(rank), is_begun=False) for rank, worker in enumerate(self.workers)
        ]
        for job in self.jobs:
            job.supervision.clock = lambda: self.now_s
        self.group = RankGroup(
            [
                RankJob(worker=job.worker, job=rank, plan=job.plan, listener=job.inbox)
                for rank, job in enumerate(self.jobs)
            ],
            plan,
            [job.supervision for job in self.jobs],
            clock=lambda: self.now_s,
        )
        self.group.begin()

    def begin(self, at: Reading) -> None:
        for worker in self.workers:
            worker.begin(at, "call")
        self.step(at, at)

    def step(self, *now: Reading, after_s: float = 0.06) -> None:
        """A step of the group, after so many seconds; ``now`` is what each rank holds then."""
        self.now_s += after_s
        for job, holds in zip(self.jobs, now, strict=False):
            job.memory.now = holds
        self.group.step()

    def finish(self, *ranks: int) -> None:
        for rank in ranks:
            self.workers[rank].say(Finished())
            self.workers[rank].ended = Exit(code=0)

    def result(self) -> MeasuredRanks:
        while not self.group.is_over:
            self.step()
        return self.group.result()


@pytest.fixture
def make(tmp_path: Path) -> Generator[Make]:
    """Two ranks with these budgets for both together."""
    made: list[Ranks] = []

    def make_(*budgets: Budget, pids: tuple[int, ...] = (), **plan: Any) -> Ranks:
        made.append(Ranks(tmp_path, JobPlan(terms=TERMS, budgets=budgets, ranks=2, **plan), pids))
        return made[-1]

    yield make_
    for ranks in made:
        for worker in ranks.workers:
            worker.stop()


def test_ranks_that_finish_are_known_each_by_itself_and_together(make: Make) -> None:
    ranks = make()
    ranks.begin(reading(100))
    ranks.step(reading(130), reading(150))
    ranks.step(reading(140), reading(120))
    ranks.finish(0, 1)

    measured = ranks.result()

    assert measured.failed == ()
    assert [each.peak.peak_bytes // MB for each in measured.ranks if each.peak] == [40, 50]
    assert measured.together.ending.kind == "completed"
    assert measured.together.peak is not None
    # 30 + 50 were held at once; 40 of the first rank came later
    assert (measured.together.peak.peak_bytes // MB, measured.together.peak.method) == (80, "sampled")


def test_a_rank_that_is_done_holds_nothing_any_more(make: Make) -> None:
    ranks = make()
    ranks.begin(reading(100))
    ranks.step(reading(180), reading(110))
    ranks.finish(0)
    ranks.step(reading(180), reading(110))
    ranks.step(reading(0), reading(180))
    ranks.finish(1)

    measured = ranks.result()

    assert measured.together.peak is not None
    assert measured.together.peak.peak_bytes == 90 * MB


def test_ranks_are_resident_with_no_less_than_what_they_cannot_give_back(make: Make) -> None:
    ranks = make()
    ranks.begin(reading(100))
    first, second = ranks.workers
    ranks.step(reading(100, file=50), reading(100))
    second.say(Boundary(reading(100), copied=Copied(1 * MB, 0)))
    ranks.step(reading(110), reading(100))
    first.say(Boundary(reading(110), copied=Copied(20 * MB, 0)))
    ranks.step(reading(100), reading(100))
    second.say(Boundary(reading(100), copied=Copied(61 * MB, 0)))
    ranks.step(reading(100), reading(100))
    ranks.finish(0, 1)

    peak = ranks.result().together.peak

    assert peak is not None
    assert peak.peak_resident_bytes >= peak.peak_bytes


def test_a_spike_of_one_rank_that_only_its_mark_shows_counts_as_if_all_had_held_at_once(make: Make) -> None:
    ranks = make(max_ram("100MB"))
    ranks.begin(reading(100))
    ranks.step(reading(130), reading(150))
    ranks.workers[0].cross(reading(100, mark=400), closes=1)
    ranks.step(reading(100), reading(100))
    ranks.finish(0, 1)

    measured = ranks.result()

    (verdict,) = measured.together.verdicts
    assert verdict.actual_bytes == (30 + 50 + 270) * MB
    assert verdict.held  # all that is over the limit may be the error
    assert "uncertain by" in measured.together.notes[0]


def test_inherited_pages_that_ranks_have_copied_count_in_their_sum(make: Make) -> None:
    ranks = make(max_ram("90MB"))
    ranks.begin(reading(100))
    ranks.step(reading(130), reading(140))
    for worker in ranks.workers:
        worker.say(Boundary(reading(100), closes=1, copied=Copied(20 * MB, 0)))
    ranks.step(reading(100), reading(100))
    ranks.finish(0, 1)

    measured = ranks.result()

    (verdict,) = measured.together.verdicts
    assert verdict.actual_bytes == (30 + 40 + 2 * 20) * MB
    assert not verdict.held  # a boundary counts the copies: they are no error


def test_ranks_are_ended_a_second_after_another_has_failed(make: Make) -> None:
    ranks = make()
    ranks.begin(reading(100))
    ranks.workers[1].say(Payload("failed"))
    ranks.step()

    ranks.step(after_s=0.9)
    assert ranks.workers[0].asked == []
    ranks.step(after_s=0.2)
    assert (ranks.workers[0].asked, ranks.workers[1].asked) == (["exit"], [])
    ranks.finish(1)

    measured = ranks.result()

    assert measured.failed == (1,)
    assert [each.ending.kind for each in measured.ranks] == ["ended", "completed"]


def test_ranks_that_fail_within_that_second_are_all_blamed_the_first_one_first(make: Make) -> None:
    ranks = make()
    ranks.begin(reading(100))
    ranks.workers[1].ended = Exit(signal="SIGSEGV")
    ranks.workers[1].theirs.close()
    ranks.step()
    ranks.workers[0].say(Payload("failed"))
    ranks.step()
    ranks.finish(0)

    measured = ranks.result()

    assert measured.failed == (1, 0)
    assert [each.ending.kind for each in measured.ranks] == ["completed", "crashed"]


def test_a_rank_that_runs_out_of_time_has_failed_by_itself(make: Make) -> None:
    ranks = make(timeout_s=1.0)
    ranks.begin(reading(100))
    ranks.finish(0)

    ranks.step(after_s=1.1)
    measured = ranks.result()

    assert measured.failed == (1,)
    assert [each.ending.kind for each in measured.ranks] == ["completed", "timed_out"]


def test_all_ranks_write_their_stacks_before_one_that_ran_out_of_time_is_ended(make: Make) -> None:
    ranks = make(timeout_s=1.0)
    asked: list[str] = []
    for worker in ranks.workers:
        worker.asked = asked
    ranks.begin(reading(100))

    ranks.step(after_s=1.1)
    measured = ranks.result()

    assert asked == ["stack", "stack", "exit", "exit"]
    assert {each.ending.kind for each in measured.ranks} == {"timed_out"}


def test_all_ranks_write_their_stacks_when_together_they_cross_a_budget(make: Make) -> None:
    ranks = make(max_ram("60MB"))
    ranks.begin(reading(100))
    ranks.step(reading(120), reading(130))
    assert [worker.asked for worker in ranks.workers] == [[], []]
    ranks.step(reading(140), reading(130))
    ranks.step(reading(141), reading(131))
    ranks.finish(0, 1)

    measured = ranks.result()

    assert [worker.asked for worker in ranks.workers] == [["stack"], ["stack"]]
    (verdict,) = measured.together.verdicts
    assert verdict.sentence == "max_ram is 60.0 MB, used 72.0 MB unreclaimable: 12.0 MB over"
    assert measured.together.stack.at == "the crossing"


def test_a_rank_that_is_done_writes_no_stack(make: Make) -> None:
    ranks = make(max_ram("60MB"))
    ranks.begin(reading(100))
    ranks.finish(0)
    ranks.step()
    ranks.step(reading(0), reading(170))
    ranks.finish(1)

    ranks.result()

    assert [worker.asked for worker in ranks.workers] == [[], ["stack"]]


def test_all_ranks_are_stopped_when_together_they_hold_twice_a_budget(make: Make) -> None:
    ranks = make(max_ram("60MB"))
    ranks.begin(reading(100))
    ranks.step(reading(170), reading(180))

    measured = ranks.result()

    assert [worker.asked for worker in ranks.workers] == [["exit"], ["exit"]]
    assert [each.ending.kind for each in measured.ranks] == ["over_budget", "over_budget"]
    assert set(measured.failed) == {0, 1}


def test_ranks_that_leave_the_machine_too_little_are_stopped(make: Make) -> None:
    ranks = make(reserve_bytes=10**15)
    ranks.begin(reading(100))
    ranks.step(reading(100 + 6 * 10**8), reading(100 + 6 * 10**8))

    measured = ranks.result()

    assert {each.ending.note for each in measured.ranks} == {"stopped before the machine ran out of memory"}


def max_disk(limit: str) -> Budget:
    return Budget(
        kind="max_disk", limit=parse_limit(limit), limit_bytes=TERMS.bytes(parse_limit(limit)), count="written"
    )


def test_bytes_on_the_disk_are_summed_over_the_ranks(make: Make) -> None:
    ranks = make(max_disk("10MB"))
    for written in (5 * MB, 12 * MB):
        for worker in ranks.workers:
            openings = (Opening("test"),) if written == 5 * MB else ()
            worker.say(Boundary(reading(100), opens=openings, written_bytes=written))
        ranks.step(reading(100), reading(100))
    ranks.finish(0, 1)

    measured = ranks.result()

    (verdict,) = measured.together.verdicts
    assert (verdict.actual_bytes, measured.together.written_bytes) == (14 * MB, 14 * MB)


def test_the_course_of_all_ranks_is_their_sum(make: Make) -> None:
    ranks = make(draws_timeline=True)
    ranks.begin(reading(100))
    ranks.step(reading(130), reading(150))
    ranks.finish(0, 1)

    timeline = ranks.result().together.timeline

    assert timeline is not None
    assert timeline.unreclaimable_bytes == (0, 80 * MB)
    assert timeline.seconds == (0.06, 0.12)


def test_ranks_that_never_began_have_nothing_together(make: Make) -> None:
    ranks = make(max_ram("60MB"))
    for worker in ranks.workers:
        worker.ended = Exit(code=1)
        worker.theirs.close()

    measured = ranks.result()

    assert measured.together.peak is None
    assert (measured.together.timeline, measured.together.written_bytes) == (None, None)


# -- real processes: pages that ranks share, and what a session does


HOLDER = """
import mmap, sys
file = open(sys.argv[1], "r+b")
page = mmap.mmap(file.fileno(), 0)
sum(page[::4096])
own = b"x" * 20_000_000
print(flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def holders(shared: Path) -> Generator[tuple[int, ...]]:
    """Two processes that share 60 MB of memory, and hold 20 MB each."""
    shared.write_bytes(bytes(60 * MB))
    with contextlib.ExitStack() as opened:
        opened.callback(shared.unlink)
        command = [sys.executable, "-c", HOLDER, str(shared)]
        started = [opened.enter_context(subprocess.Popen(command, stdin=-1, stdout=-1)) for _ in range(2)]
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        yield tuple(process.pid for process in started)


def read(pid: int) -> Reading:
    with contextlib.closing(open_memory(pid)) as memory:
        now = memory.read()
    assert now is not None
    return replace(now, mark_bytes=None)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a file system in memory")
@pytest.mark.parametrize("count", ["unreclaimable", "resident"])
@pytest.mark.parametrize("limit", ["1GB", "50% host"])
def test_memory_that_ranks_share_counts_once(make: Make, tmp_path: Path, limit: str, count: Any) -> None:
    parsed = parse_limit(limit)
    budget = Budget(kind="max_ram", limit=parsed, limit_bytes=TERMS.bytes(parsed), count=count)
    with holders(Path("/dev/shm", tmp_path.name)) as pids:
        ranks = make(budget, pids=pids)
        now = [read(pid) for pid in pids]
        before = [replace(each, anonymous_bytes=each.anonymous_bytes - 20 * MB, shmem_bytes=0) for each in now]
        for worker, reading_ in zip(ranks.workers, before, strict=True):
            worker.begin(reading_, "call")
        ranks.step(*before)
        ranks.step(*now)
        together = shared_once(pids)
        ranks.finish(0, 1)

        measured = ranks.result()

    # of the machine all counts, and else what has come
    absolute = together.unreclaimable_bytes if count == "unreclaimable" else together.resident_bytes
    (verdict,) = measured.together.verdicts
    assert abs(verdict.actual_bytes - (absolute if limit == "50% host" else 100 * MB)) < MB


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a file system in memory")
def test_copies_that_ranks_make_beside_what_they_share_count_once(make: Make, tmp_path: Path) -> None:
    with holders(Path("/dev/shm", tmp_path.name)) as pids:
        ranks = make(pids=pids)
        # 15 MB of each are copies of inherited pages, which make no rank larger than it was
        now = [replace(each, anonymous_bytes=each.anonymous_bytes - 15 * MB) for each in map(read, pids)]
        before = [replace(each, anonymous_bytes=each.anonymous_bytes - 5 * MB, shmem_bytes=0) for each in now]
        for worker, reading_ in zip(ranks.workers, before, strict=True):
            worker.begin(reading_, "call")
        ranks.step(*before)
        ranks.step(*now)
        for worker, reading_ in zip(ranks.workers, now, strict=True):
            worker.say(Boundary(reading_, closes=1, copied=Copied(15 * MB, 0)))
        ranks.step(*now)
        ranks.finish(0, 1)

        measured = ranks.result()

    assert measured.together.peak is not None
    assert abs(measured.together.peak.peak_bytes - (60 + 2 * 20) * MB) < MB


def test_ranks_are_measured_from_their_beginning_to_their_end(tmp_path: Path) -> None:
    workers = [ScriptedWorker(tmp_path / str(rank)) for rank in range(2)]
    for rank, worker in enumerate(workers):
        worker.begin(reading(100), "call")
        worker.cross(reading(100 + 10 * rank), closes=1)
        worker.say(Finished())
        worker.ended = Exit(code=0)

    measured = measure_ranks(jobs_of(workers), plan=JobPlan(terms=TERMS, ranks=2), driver=NoDriver("none"))

    assert [each.ending.kind for each in measured.ranks] == ["completed", "completed"]
    assert [worker.is_open for worker in workers] == [False, False]
    for worker in workers:
        worker.stop()


def test_control_c_ends_every_rank(tmp_path: Path) -> None:
    workers = [ScriptedWorker(tmp_path / str(rank)) for rank in range(2)]

    def interrupt() -> None:
        raise KeyboardInterrupt

    workers[0].before_poll = interrupt

    with pytest.raises(KeyboardInterrupt):
        measure_ranks(jobs_of(workers), plan=JobPlan(terms=TERMS, ranks=2), driver=NoDriver("none"))

    assert [worker.asked for worker in workers] == [["signal 9"], ["signal 9"]]
    for worker in workers:
        worker.stop()


def jobs_of(workers: list[ScriptedWorker]) -> list[RankJob]:
    return [
        RankJob(
            worker=worker, job=rank, plan=JobPlan(terms=TERMS), listener=SupervisedJob(worker, is_begun=False).inbox
        )
        for rank, worker in enumerate(workers)
    ]
