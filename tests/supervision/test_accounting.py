"""The account of a job, from recorded boundaries and samples."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.meter import Meter
from pytest_llmmem.core.readings import NOTHING, Reading
from pytest_llmmem.core.terms import Terms
from pytest_llmmem.core.vram import DriverReading
from pytest_llmmem.supervision.accounting import WHOLE, Accounting
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.timeline_recorder import TimelineRecorder
from pytest_llmmem.workers.messages import Accepted, Boundary, Opening, Spent
from tests.supervision.simulated_job import MB, TERMS, SimulatedJob, max_ram, reading


def driver(used: int, own: int | None = None) -> DriverReading:
    return DriverReading(device="cuda:0", used_bytes=used, peak_used_bytes=used, own_bytes=own, peak_own_bytes=own)


def phases(accounting: Accounting) -> dict[str, int]:
    return {phase.name: phase.peak_bytes // MB for phase in accounting.phases()}


def test_each_phase_has_the_peak_of_its_own_stretch() -> None:
    job = SimulatedJob()
    job.begin(reading(100), "setup")
    job.sample(reading(150))
    job.cross(reading(150), closes=1, opens=("call",))
    job.sample(reading(400))
    job.cross(reading(160), closes=1, opens=("teardown",))

    assert phases(job.accounting) == {"setup": 50, "call": 250, "teardown": 0}
    whole = job.accounting.peak(sampled=False)
    assert whole is not None
    assert whole.peak_bytes == 300 * MB


def test_a_phase_that_death_left_open_has_what_it_had_reached() -> None:
    job = SimulatedJob()
    job.begin(reading(100), "call")
    job.sample(reading(170), after_s=2.0)

    (call,) = job.accounting.phases()

    assert (call.name, call.peak_bytes, call.seconds) == ("call", 70 * MB, 2.0)
    assert job.accounting.phase == "call"


def test_a_block_is_answered_when_it_opens_and_when_it_closes() -> None:
    job = SimulatedJob()
    job.begin(reading(100), "call")

    (opened,) = job.cross(reading(100), opens=("block",), limit="20MB")
    job.sample(reading(130))
    (closed,) = job.cross(reading(100), closes=1)

    assert opened == Accepted(None)
    assert isinstance(closed, Spent)
    assert (closed.peak.peak_bytes, closed.limit_bytes) == (30 * MB, 20 * MB)
    assert closed.breach == "memory_budget is 20.0 MB, used 30.0 MB unreclaimable in 'block': 10.0 MB over"


def test_a_limit_in_terms_that_nobody_knows_is_a_complaint_to_the_block() -> None:
    job = SimulatedJob()
    job.begin(reading(100), "call")

    (answer,) = job.cross(reading(100), opens=("block",), limit="2 * weights")

    assert isinstance(answer, Accepted)
    assert answer.complaint is not None
    assert answer.complaint.startswith(
        "memory_budget 'block': '2 * weights' is in terms of a checkpoint, and this test"
    )


def test_a_limit_is_worked_out_from_the_numbers_of_the_plan() -> None:
    terms = Terms(host_bytes=10**12, model={"weights": 10 * MB})
    job = SimulatedJob(JobPlan(terms=terms))
    job.begin(reading(100), "call")
    job.cross(reading(100), opens=("block",), limit="2 * weights")

    (closed,) = job.cross(reading(100), closes=1)

    assert isinstance(closed, Spent)
    assert closed.limit_bytes == 20 * MB


def test_a_setup_that_repeats_another_tests_is_not_judged() -> None:
    plan = JobPlan(terms=Terms(host_bytes=10**12), budgets=(max_ram("50MB"),), judges_setup=False)
    job = SimulatedJob(plan)
    job.begin(reading(100), "setup")
    job.sample(reading(900))
    assert job.accounting.standing() == []

    job.cross(reading(300), closes=1, opens=("call",))
    job.sample(reading(340))

    (verdict,) = job.accounting.verdicts(at_least_bytes=0, unfinished=False)
    assert (verdict.held, verdict.actual_bytes) == (True, 40 * MB)
    assert phases(job.accounting)["setup"] == 800


def test_what_a_hard_limit_has_seen_counts_though_no_sample_did() -> None:
    job = SimulatedJob(JobPlan(terms=Terms(host_bytes=10**12), budgets=(max_ram("50MB"),)))
    job.begin(reading(100), "call")

    (verdict,) = job.accounting.verdicts(at_least_bytes=52 * MB, unfinished=True)

    assert (verdict.held, verdict.actual_bytes) == (False, 52 * MB)


def test_a_peak_that_only_the_boundary_told_is_on_the_timeline_once() -> None:
    recorder = TimelineRecorder()
    job = SimulatedJob(timeline=recorder)
    job.begin(reading(100), "call")
    job.sample(reading(110, mark=110), after_s=1.0)

    job.now_s = 2.0
    job.cross(reading(120, mark=500), closes=1, opens=("teardown",))
    job.sample(reading(120, mark=120), after_s=1.0)

    held = [size // MB for size in recorder.record().unreclaimable_bytes]
    assert held == [10, 400, 20, 20]


def test_a_block_that_keeps_too_much_breaks_its_other_limit() -> None:
    job = SimulatedJob()
    job.begin(reading(100), "call")

    (opened,) = job.cross(reading(100), opens=("decode",), keeps="5MB")
    job.sample(reading(180))
    (closed,) = job.cross(reading(109), closes=1)

    assert opened == Accepted(None)
    assert isinstance(closed, Spent)
    assert (closed.kept_bytes, closed.limit_bytes) == (9 * MB, None)
    assert closed.breach == "keeps is 5.00 MB, kept 9.00 MB in 'decode': 4.00 MB over"


def test_a_block_may_have_both_limits_and_breaks_both_in_one_sentence() -> None:
    job = SimulatedJob()
    job.begin(reading(100), "call")
    job.cross(reading(100), opens=("decode",), limit="20MB", keeps="5MB")
    job.sample(reading(130))

    (closed,) = job.cross(reading(109), closes=1)

    assert isinstance(closed, Spent)
    assert closed.breach is not None
    assert [sentence.split()[0] for sentence in closed.breach.split("; ")] == ["memory_budget", "keeps"]
    assert [verdict.held for verdict in job.accounting.verdicts(at_least_bytes=0, unfinished=False)] == [False, False]


def test_the_whole_is_no_phase_of_its_own_when_it_ends() -> None:
    job = SimulatedJob()
    job.begin(reading(100), "call")

    job.cross(reading(100), closes=2)

    assert list(phases(job.accounting)) == ["call"]
    assert job.accounting.phase is None


def test_memory_that_is_locked_for_a_gpu_counts_from_the_beginning_of_the_job() -> None:
    job = SimulatedJob()
    job.cross(reading(100), pinned_bytes=90 * MB)
    job.begin(reading(100), "call")
    assert job.accounting.pinned_bytes is None

    for locked in (30 * MB, 50 * MB, 0):
        job.cross(reading(100), pinned_bytes=locked)

    assert job.accounting.pinned_bytes == 50 * MB


def test_a_course_begins_anew_with_a_call_whose_setup_does_not_count() -> None:
    recorder = TimelineRecorder()
    job = SimulatedJob(JobPlan(terms=TERMS, judges_setup=False), timeline=recorder)
    job.begin(reading(100), "setup")
    job.sample(reading(900), after_s=1.0)
    job.cross(reading(300), closes=1, opens=("call",))

    job.sample(reading(301, mark=340), after_s=1.0)  # a peak below the one of the setup

    assert [size // MB for size in recorder.record().unreclaimable_bytes] == [800, 200, 40]


def test_only_what_is_small_and_on_no_device_need_not_be_waited_for() -> None:
    job = SimulatedJob()
    assert not job.accounting.is_small

    job.begin(reading(100), "call")
    assert job.accounting.is_small

    job.sample(reading(100, file=80))
    assert not job.accounting.is_small


def test_a_device_that_was_used_is_waited_for_however_little_it_was() -> None:
    job = SimulatedJob()
    job.begin(reading(100), "call")

    job.accounting.add_driver_readings((driver(MB),), in_use=True)

    assert job.accounting.vram_held_bytes == 0
    assert not job.accounting.is_small


def test_a_driver_that_does_not_answer_in_time_leaves_its_last_answer() -> None:
    job = SimulatedJob()
    job.begin(reading(100), "call")
    job.accounting.add_driver_readings((driver(0, own=0),), in_use=True)
    job.accounting.add_driver_readings((driver(9 * MB, own=7 * MB),), in_use=True)

    job.accounting.add_driver_readings((), in_use=True)

    assert job.accounting.vram_held_bytes == 7 * MB


def test_a_device_that_only_others_use_is_none_of_the_jobs() -> None:
    job = SimulatedJob()
    job.begin(reading(100), "call")

    job.accounting.add_driver_readings((driver(9 * MB),), in_use=False)

    assert job.accounting.vram.peaks == ()


def test_bytes_on_the_disk_have_a_budget_of_their_own() -> None:
    limit = Budget(kind="max_disk", limit=parse_limit("5MB"), limit_bytes=5 * MB, count="written")
    job = SimulatedJob(JobPlan(terms=TERMS, budgets=(limit,)))
    job.cross(reading(100), opens=(WHOLE,), written_bytes=100 * MB)

    job.cross(reading(900), written_bytes=108 * MB)

    (verdict,) = job.accounting.verdicts(at_least_bytes=999 * MB, unfinished=False)
    assert (verdict.held, verdict.actual_bytes) == (False, 8 * MB)


def test_without_samples_a_peak_that_only_the_mark_shows_is_certain() -> None:
    sampled, unsampled = (
        Accounting((max_ram("50MB"),), TERMS, clock=lambda: 0.0, meter=Meter(), is_sampled=each)
        for each in (True, False)
    )
    for accounting in (sampled, unsampled):
        accounting.cross(Boundary(reading(100), opens=(Opening(WHOLE),)), NOTHING)
        accounting.cross(Boundary(reading(100, mark=200)), NOTHING)

    verdicts = [each.verdicts(at_least_bytes=0, unfinished=False)[0] for each in (sampled, unsampled)]
    assert [(verdict.actual_bytes, verdict.held) for verdict in verdicts] == [(100 * MB, True), (100 * MB, False)]


def test_written_bytes_are_counted_from_the_first_that_is_known() -> None:
    accounting = SimulatedJob().accounting
    assert accounting.written.bytes is None

    for total in (None, 7 * MB, 9 * MB, 8 * MB):
        accounting.written.add(total)

    assert accounting.written.bytes == 2 * MB


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["sample", "open", "close"]),
        st.integers(0, 1000),  # anonymous
        st.integers(0, 500),  # files
        st.none() | st.integers(0, 400),  # how far the mark is above
    ),
    max_size=40,
)


@given(MOVES)
def test_peaks_only_rise_lie_within_the_test_and_above_every_sample(
    moves: list[tuple[str, int, int, int | None]],
) -> None:
    job = SimulatedJob()
    base = reading(200, file=50)
    job.begin(base, "call")
    assert job.accounting.whole is not None
    window, depth, highest = job.accounting.whole, 1, 0
    peaks = [window.peak]
    for move, anonymous, file, above in moves:
        at: Reading = reading(anonymous, file=file, mark=None if above is None else anonymous + file + above)
        if move == "sample":
            job.sample(at)
        elif move == "open":
            job.cross(at, opens=("block",))
            depth += 1
        elif depth > 1:
            job.cross(at, closes=1)
            depth -= 1
        else:
            continue
        highest = max(highest, at.unreclaimable_bytes - base.unreclaimable_bytes)
        peaks.append(window.peak)

    assert all(
        earlier.peak_bytes <= later.peak_bytes and earlier.peak_resident_bytes <= later.peak_resident_bytes
        for earlier, later in pairwise(peaks)
    )
    assert window.peak.peak_bytes >= highest
    assert window.peak.peak_bytes - window.peak.error_bytes <= max(highest, 0)
    for phase in job.accounting.phases():
        assert 0 <= phase.started_s <= phase.started_s + phase.seconds <= job.now_s
