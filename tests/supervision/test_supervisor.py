"""The loop around a job: what a worker says and holds, on a simulated clock, and what is done about it."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.endings import Exit
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.readings import LifetimeMarks, Reading
from pytest_llmmem.core.vram import VramReading
from pytest_llmmem.probes.driver import NoDriver
from pytest_llmmem.supervision.job import measure_job
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.supervisor import PENDING_MESSAGES
from pytest_llmmem.workers.limits import JobLimiter
from pytest_llmmem.workers.messages import Accepted, Boundary, Finished, GpusRead, Opening, Payload, Run, Spent, Streams
from tests.capabilities import is_there
from tests.supervision.scripted_worker import Inbox, RecordedDriver, ScriptedWorker, SupervisedJob
from tests.supervision.simulated_job import MB, TERMS, max_ram, reading


@pytest.fixture
def worker(tmp_path: Path) -> Generator[ScriptedWorker]:
    made = ScriptedWorker(tmp_path)
    yield made
    made.stop()


def end(job: SupervisedJob, *, last: bool = True) -> Measured:
    """What is known at the end."""
    job.worker.ended = job.worker.ended or Exit(code=0)
    return job.supervision.end(last=last)


def begun(worker: ScriptedWorker, *budgets: Budget, timeout_s: float | None = None, **plan: object) -> SupervisedJob:
    """A job that is in its call, at 100 MB."""
    job = SupervisedJob(worker, JobPlan(terms=TERMS, budgets=budgets, timeout_s=timeout_s, **plan))  # type: ignore[arg-type]
    worker.begin(reading(100), "call")
    job.step(reading(100))
    return job


def test_a_job_that_finishes_has_its_phases_and_its_messages(worker: ScriptedWorker) -> None:
    job = SupervisedJob(worker)
    assert worker.heard() == [Run("the job", last=True, waits=False)]
    worker.begin(reading(100), "setup")
    job.step(reading(100))
    job.step(reading(150))
    worker.cross(reading(150), closes=1, opens=("call",))
    job.step(reading(150))
    job.step(reading(400))
    job.say("a report")
    worker.say(Finished())
    for _ in range(2):
        job.step()
    (spent,) = worker.heard()

    measured = end(job)

    assert job.supervision.is_over
    assert (measured.ending.kind, measured.seconds) == ("completed", job.now_s)
    assert {phase.name: phase.peak_bytes // MB for phase in measured.phases} == {"setup": 50, "call": 250}
    assert job.inbox.payloads == ["a report"]
    assert [grown // MB for grown in job.inbox.growth_bytes] == [0, 50, 50, 300, 300]
    assert isinstance(spent, Spent)
    assert worker.asked == []
    assert [each.anonymous_bytes // MB for each in job.memory.learned] == [100, 150]


def test_a_worker_that_goes_on_with_other_jobs_is_left_alone(worker: ScriptedWorker) -> None:
    job = begun(worker)
    worker.say(Finished())
    job.step()

    job.supervision.end(last=False)
    job.supervision.close()

    assert (worker.is_open, worker.asked, job.memory.is_open) == (True, [], False)


def test_a_worker_that_does_not_leave_after_its_last_job_is_killed(worker: ScriptedWorker) -> None:
    job = begun(worker)
    worker.say(Finished())
    job.step()

    job.supervision.end(last=True)

    assert (worker.asked, worker.is_open) == (["signal 9"], False)


def test_a_spike_between_two_samples_is_told_by_the_mark_of_the_next(worker: ScriptedWorker) -> None:
    job = begun(worker)

    job.step(reading(101, mark=700))

    measured = end(job)
    assert measured.peak is not None
    assert (measured.peak.peak_bytes, measured.peak.error_bytes >= 599 * MB) == (600 * MB, True)


def test_a_sample_during_which_a_boundary_was_crossed_counts_for_neither_side(worker: ScriptedWorker) -> None:
    job = begun(worker)
    job.say("a message, after which the sample is taken")
    worker.cross(reading(100), closes=1, opens=("teardown",))

    job.step(reading(500))
    job.step(reading(100))

    measured = end(job)
    assert {phase.name: phase.peak_bytes for phase in measured.phases} == {"call": 0, "teardown": 0}


def test_a_worker_that_sends_without_end_is_still_sampled(worker: ScriptedWorker) -> None:
    job = begun(worker)
    job.say(*range(150))

    job.step(reading(300))

    assert len(job.inbox.payloads) == 1 + PENDING_MESSAGES
    measured = end(job)
    assert measured.peak is not None
    assert measured.peak.peak_bytes == 200 * MB


def test_most_samples_are_cheap_each_fifth_is_full_and_every_50_ms_all_is_read(worker: ScriptedWorker) -> None:
    job = begun(worker)

    for _ in range(8):
        job.step(after_s=0.002)
    job.step(after_s=0.04)

    assert job.memory.asked == ["pages", *["growth"] * 3, "all", *["growth"] * 4, "pages"]


def test_a_cheap_sample_far_from_every_limit_waits_for_the_next_full_one(worker: ScriptedWorker) -> None:
    job = begun(worker, max_ram("100GB"))

    job.step(reading(130), after_s=0.002)

    assert job.inbox.growth_bytes == [0]
    measured = end(job)
    assert measured.peak is not None
    assert measured.peak.peak_bytes == 30 * MB


def test_a_cheap_sample_that_shows_nothing_new_is_no_reason_for_anything(worker: ScriptedWorker) -> None:
    job = begun(worker, timeout_s=1.0)

    for _ in range(3):
        job.step(after_s=0.01)

    assert job.inbox.growth_bytes == [0]


def test_a_cheap_sample_near_a_limit_is_judged_at_once(worker: ScriptedWorker) -> None:
    job = begun(worker, max_ram("50MB", on_breach="stop"))

    job.step(reading(160), after_s=0.002)

    assert worker.asked == ["exit"]


def test_pages_of_libraries_are_counted_anew_before_a_resident_budget_is_broken(worker: ScriptedWorker) -> None:
    job = begun(worker, max_ram("50MB", count="resident"))
    job.memory.pages = Reading(anonymous_bytes=100 * MB, library_bytes=90 * MB, mark_bytes=190 * MB)

    for _ in range(10):  # only each fifth sample asks for all that the kernel tells
        job.step(reading(100, file=90, mark=190), after_s=0.004)

    assert worker.asked == []
    (verdict,) = end(job).verdicts
    assert (verdict.held, verdict.actual_bytes) == (True, 0)


def test_what_a_job_writes_to_the_disk_is_asked_for_where_a_budget_limits_it(worker: ScriptedWorker) -> None:
    limit = Budget(kind="max_disk", limit=parse_limit("5MB"), limit_bytes=5 * MB, count="written")
    worker.pid = os.getpid()  # which has written, and whose bytes are known on Linux
    job = begun(worker, limit)
    job.step(reading(100))

    measured = end(job)

    (verdict,) = measured.verdicts
    assert (verdict.kind, verdict.held) == ("max_disk", True)
    assert measured.written_bytes == (0 if is_there("/proc") else None)


def test_before_the_job_has_begun_its_samples_count_for_nothing(worker: ScriptedWorker) -> None:
    job = SupervisedJob(worker, JobPlan(terms=TERMS, budgets=(max_ram("50MB"),)))

    job.step(reading(900))

    measured = end(job)
    assert (measured.peak, measured.verdicts) == (None, ())


def test_a_job_that_never_begins_times_out(worker: ScriptedWorker) -> None:
    job = SupervisedJob(worker, JobPlan(terms=TERMS, timeout_s=1.0))

    job.step(after_s=0.9)
    assert worker.asked == []
    job.step(after_s=0.2)

    assert worker.asked == ["stack", "exit"]


def test_the_stack_at_the_crossing_of_a_budget_is_taken_once_and_the_job_goes_on(worker: ScriptedWorker) -> None:
    job = begun(worker, max_ram("50MB"), shards=("a.safetensors", "b.safetensors"), draws_timeline=True)
    worker.files.place.write("b.safetensors", "lm_head.weight")
    job.step(reading(160))
    job.step(reading(170))
    worker.say(Finished())
    job.step()

    measured = end(job)

    assert worker.asked == ["stack"]
    assert (measured.ending.kind, measured.stack.at) == ("completed", "the crossing")
    assert [frame.function for frame in measured.stack.frames] == ["load"]
    assert measured.place == "shard 2 of 2, `lm_head.weight`"
    assert measured.timeline is not None
    assert [(mark.kind, mark.text) for mark in measured.timeline.marks] == [
        ("shard", "shard 2 of 2"),
        ("breach", "max_ram is 50.0 MB, used 60.0 MB unreclaimable: 10.0 MB over"),
    ]


def test_the_next_shard_of_a_load_is_marked_as_it_begins(worker: ScriptedWorker) -> None:
    job = begun(worker, shards=("a.safetensors", "b.safetensors"), draws_timeline=True)
    for shard, tensor in (("a.safetensors", "one"), ("a.safetensors", "two"), ("b.safetensors", "three")):
        worker.files.place.write(shard, tensor)
        job.step(reading(100))

    measured = end(job)

    assert measured.timeline is not None
    assert [mark.text for mark in measured.timeline.marks if mark.kind == "shard"] == ["shard 1 of 2", "shard 2 of 2"]


def test_growth_beyond_the_baseline_has_a_stack_of_its_own(worker: ScriptedWorker) -> None:
    job = begun(worker, baseline_allows_bytes=20 * MB)
    job.step(reading(130))
    job.step(reading(140))
    worker.say(Finished())
    job.step()

    measured = end(job)

    assert worker.asked == ["stack"]
    assert [frame.function for frame in measured.growth_stack.frames] == ["load"]
    assert measured.stack.frames == ()


def test_a_job_beyond_twice_its_limit_is_asked_to_exit_and_judged_by_what_it_reached(worker: ScriptedWorker) -> None:
    job = begun(worker, max_ram("50MB"))
    worker.ends_when_asked = False
    job.step(reading(250))
    job.step(reading(400), after_s=0.01)  # it goes on growing until the signal arrives
    worker.ended = Exit(signal="signal 40")
    worker.theirs.close()
    job.step(after_s=0.01)

    measured = end(job)

    assert worker.asked == ["exit"]
    assert (measured.ending.kind, measured.ending.phase) == ("over_budget", "call")
    (verdict,) = measured.verdicts
    assert verdict.actual_bytes == 300 * MB
    assert [frame.function for frame in measured.stack.frames] == ["dying"]


def test_a_worker_that_ignores_its_stop_is_killed_when_its_grace_is_over(worker: ScriptedWorker) -> None:
    job = begun(worker, timeout_s=1.0)
    worker.ends_when_asked = False

    job.step(after_s=1.0)
    job.step(after_s=0.1)
    assert worker.asked == ["stack", "exit"]
    job.step(after_s=0.2)

    assert worker.asked == ["stack", "exit", "signal 9"]
    job.step()
    assert end(job).ending.kind == "timed_out"


def test_a_job_that_is_stopped_or_over_is_not_stopped_again(worker: ScriptedWorker) -> None:
    job = begun(worker)

    job.supervision.stop("other_rank")
    job.supervision.stop("over_budget")
    job.step()
    job.supervision.stop("over_budget")

    assert worker.asked == ["exit"]
    assert end(job).ending.kind == "ended"


def test_memory_after_the_last_sample_is_told_by_the_exit(worker: ScriptedWorker) -> None:
    job = begun(worker, draws_timeline=True)
    worker.ended = Exit(signal="SIGSEGV", peak_resident_bytes=800 * MB)
    worker.theirs.close()
    job.step()

    measured = end(job)

    assert (measured.ending.kind, measured.ending.signal) == ("crashed", "SIGSEGV")
    assert measured.peak is not None
    assert measured.peak.peak_bytes == 700 * MB
    assert measured.timeline is not None
    assert [(mark.kind, mark.text) for mark in measured.timeline.marks] == [("death", "SIGSEGV")]


def test_marks_that_are_never_reset_are_told_by_the_exit_too(worker: ScriptedWorker) -> None:
    job = begun(worker)
    worker.ended = Exit(code=1, lifetime=LifetimeMarks(unreclaimable_bytes=900 * MB))
    worker.theirs.close()
    job.step()

    measured = end(job)

    assert measured.ending.kind == "exited"
    assert measured.peak is not None
    assert measured.peak.peak_bytes == 800 * MB


def test_the_end_of_the_output_of_a_worker_that_died_is_kept(worker: ScriptedWorker, tmp_path: Path) -> None:
    streams = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("out", "err")]
    for descriptor, text in zip(streams, ("loading", "Killed"), strict=True):
        os.write(descriptor, text.encode())
    job = begun(worker)
    worker.theirs.send(Streams(2), streams)
    job.step()
    worker.ended = Exit(code=1)
    worker.theirs.close()
    job.step()

    assert end(job).output == ("loading", "Killed")
    for descriptor in streams:
        os.close(descriptor)


def test_a_worker_whose_test_writes_to_its_channel_is_ended_and_told(worker: ScriptedWorker) -> None:
    job = begun(worker)
    os.write(worker.theirs.fileno(), b"hello from a test")

    job.step()

    assert (job.supervision.is_over, worker.asked) == (True, ["signal 9"])
    measured = end(job)
    assert measured.ending.kind == "exited"
    assert "it does not begin like a message" in measured.ending.note


def test_a_worker_that_closes_its_channel_and_lives_on_is_over_for_us(worker: ScriptedWorker) -> None:
    job = begun(worker)
    worker.theirs.close()

    job.step()

    measured = job.supervision.end(last=True)
    assert (measured.ending.kind, measured.ending.note) == ("exited", "it closed its channel and lives on")


def test_a_job_that_was_left_early_ends_its_worker(worker: ScriptedWorker) -> None:
    job = begun(worker)

    job.supervision.close()

    assert (worker.asked, worker.is_open, job.memory.is_open) == (["signal 9"], False, False)


def test_a_limit_that_cannot_be_enforced_here_is_a_note(worker: ScriptedWorker) -> None:
    job = begun(worker, max_ram("50MB", enforce="job"))

    assert end(job).notes == ("enforce='job' needs Windows (a Job Object): watched instead",)


def test_a_limit_that_refuses_memory_is_named(worker: ScriptedWorker) -> None:
    refusing, watching = begun(worker), SupervisedJob(worker)
    refusing.supervision._guard.limiter = JobLimiter(worker)

    assert (end(refusing).refusing_limit, end(watching).refusing_limit) == ("job", None)


def test_a_block_is_answered_while_the_job_runs(worker: ScriptedWorker) -> None:
    job = begun(worker)
    worker.cross(reading(100), opens=("block",), limit="20MB")
    job.step(reading(130))
    worker.cross(reading(100), closes=1)
    job.step(reading(100))

    _, accepted, spent = worker.heard()
    assert accepted == Accepted(None)
    assert (spent.peak.peak_bytes, spent.limit_bytes) == (30 * MB, 20 * MB)
    (verdict,) = end(job).verdicts
    assert (verdict.kind, verdict.held) == ("memory_budget", False)


# -- with a GPU

GB = 10**9


def torch_at(reserved: int) -> VramReading:
    return VramReading(
        device="cuda:0",
        allocated_bytes=reserved,
        reserved_bytes=reserved,
        peak_allocated_bytes=reserved,
        peak_reserved_bytes=reserved,
    )


def on_gpu(worker: ScriptedWorker, driver: RecordedDriver, *budgets: Budget) -> SupervisedJob:
    job = SupervisedJob(worker, JobPlan(terms=TERMS, budgets=budgets), driver=driver)
    worker.say(Boundary(reading(100), opens=(Opening("test"), Opening("call")), vram=(torch_at(0),)))
    job.step(reading(100))
    return job


def max_vram(limit: str) -> Budget:
    return Budget(
        kind="max_vram",
        limit=parse_limit(limit),
        limit_bytes=TERMS.bytes(parse_limit(limit)),
        count="device",
        device="cuda:0",
    )


def test_a_worker_with_a_gpu_waits_at_each_boundary_until_the_driver_was_asked(worker: ScriptedWorker) -> None:
    job = on_gpu(worker, RecordedDriver([0, 3 * GB]))
    job.step()
    worker.say(Boundary(reading(100), closes=1, vram=(torch_at(2 * GB),)), Finished())
    job.step()

    (peak,) = end(job, last=False).vram

    assert worker.heard() == [Run("the job", last=True, waits=True), GpusRead(), GpusRead()]
    assert (peak.peak_reserved_bytes, peak.peak_device_bytes) == (2 * GB, 3 * GB)


def test_a_death_says_that_torchs_account_of_the_gpu_is_missing(worker: ScriptedWorker) -> None:
    job = on_gpu(worker, RecordedDriver([0, 3 * GB, 3 * GB, 0]), max_vram("2GB"))
    job.step()
    assert worker.asked == ["stack"]
    worker.ended = Exit(signal="SIGSEGV")
    worker.theirs.close()
    job.step()

    measured = end(job)

    assert [note.partition(":")[0] for note in measured.notes] == [
        "torch's account of GPU memory was read when the last phase or block began"
    ]
    (verdict,) = measured.verdicts
    assert (verdict.held, verdict.actual_bytes) == (False, 3 * GB)


def test_a_driver_that_stops_to_answer_is_told_where_a_budget_needs_it(worker: ScriptedWorker) -> None:
    driver = RecordedDriver([0])
    job = on_gpu(worker, driver, max_vram("2GB"))
    driver.why_none = "the process that asks it has ended"
    worker.say(Finished())
    job.step()

    (note,) = end(job).notes

    assert note.endswith("the driver could not be asked: the process that asks it has ended")


# -- the whole, on a real clock


def test_a_job_is_measured_from_its_beginning_to_its_end(worker: ScriptedWorker) -> None:
    worker.begin(reading(100), "call")
    worker.cross(reading(160), closes=1)
    worker.say(Payload("done"), Finished())
    worker.ended = Exit(code=0)
    inbox = Inbox()

    measured = measure_job(
        worker, "the job", last=True, plan=JobPlan(terms=TERMS), listener=inbox, driver=NoDriver("none")
    )

    assert (measured.ending.kind, inbox.payloads, worker.is_open) == ("completed", ["done"], False)
    assert measured.peak is not None
    assert measured.peak.peak_bytes == 60 * MB


def test_control_c_ends_the_worker_first(worker: ScriptedWorker) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    worker.before_poll = interrupt

    with pytest.raises(KeyboardInterrupt):
        measure_job(worker, "the job", last=True, plan=JobPlan(terms=TERMS), listener=Inbox(), driver=NoDriver("none"))

    assert (worker.asked, worker.is_open) == (["signal 9"], False)
