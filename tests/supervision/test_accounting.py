"""The account of a job, from recorded boundaries and samples."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.readings import Reading
from pytest_llmmem.core.terms import Terms
from pytest_llmmem.supervision.accounting import Accounting
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.timeline_recorder import TimelineRecorder
from pytest_llmmem.workers.messages import Accepted, Spent
from tests.supervision.simulated_job import MB, SimulatedJob, max_ram, reading


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
