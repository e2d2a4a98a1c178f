"""Budgets on Windows. Wine keeps no mark of the commit, so spikes are judged by the working set, whose mark it keeps."""

import pytest

from tests.windows.conftest import Session, run_session

MB = 10**6
SOURCE = r"""
    import subprocess, sys, time

    import pytest

    def hold(size):
        return b"x" * size

    @pytest.mark.max_ram("250MB")
    def test_holds_its_budget():
        held = hold(150_000_000)
        time.sleep(0.2)

    @pytest.mark.max_ram("100MB")
    def test_breaks_its_budget():
        held = hold(150_000_000)
        time.sleep(2)  # long enough for a stack on a busy machine

    @pytest.mark.max_ram("200MB", count="resident")
    def test_breaks_its_budget_for_a_moment():
        hold(300_000_000)

    @pytest.mark.max_ram("100MB", on_breach="stop")
    def test_is_stopped():
        kept = []
        while True:
            kept.append(hold(2_000_000))
            time.sleep(0.01)

    @pytest.mark.max_ram("100MB")
    def test_has_a_child():
        code = "import time; x = b'x' * 200_000_000; time.sleep(3)"
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_has_blocks(memory_budget):
        with memory_budget("200MB", name="wide") as wide:
            held = hold(100_000_000)
            time.sleep(0.2)
        assert 90_000_000 < wide.peak_bytes < 150_000_000

    def test_breaks_a_block(memory_budget):
        with memory_budget("80MB", name="narrow"):
            held = hold(100_000_000)
            time.sleep(0.2)

    @pytest.mark.max_ram("300MB", enforce="job")
    def test_is_limited_by_its_job():
        hold(100_000_000)

    @pytest.mark.max_ram("300MB", enforce="job")
    def test_is_refused_memory():
        bytearray(10**15)  # Wine refuses it too, though not for the job

    @pytest.mark.max_ram("300MB", enforce="rlimit")
    def test_asks_for_what_is_not_there():
        hold(100_000_000)
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return run_session(tmp_path_factory.mktemp("budgets"), SOURCE)


def test_a_budget_that_holds_is_shown_beside_what_was_used(session: Session) -> None:
    (budget,) = session["test_holds_its_budget"].budgets

    assert budget.held
    assert 145 * MB < budget.actual_bytes < 175 * MB


def test_a_budget_that_is_broken_fails_the_test_and_shows_the_line(session: Session) -> None:
    record = session["test_breaks_its_budget"]

    assert (record.outcome, record.budgets[0].held) == ("failed", False)
    assert any("test_breaks_its_budget" in line or "in hold" in line for line in record.stack)


def test_a_spike_is_in_the_kernels_mark(session: Session) -> None:
    record = session["test_breaks_its_budget_for_a_moment"]

    assert record.outcome == "failed"
    assert 295 * MB < record.budgets[0].actual_bytes < 310 * MB


def test_a_test_is_stopped_at_its_budget(session: Session) -> None:
    record = session["test_is_stopped"]

    assert record.ending.kind == "over_budget"
    assert 100 * MB < record.budgets[0].actual_bytes < 160 * MB
    assert any("test_is_stopped" in line for line in record.stack)


def test_children_count(session: Session) -> None:
    record = session["test_has_a_child"]

    assert not record.budgets[0].held
    assert record.budgets[0].actual_bytes > 190 * MB


def test_a_block_has_its_own_budget(session: Session) -> None:
    assert session["test_has_blocks"].outcome == "passed"
    assert session["test_breaks_a_block"].outcome == "failed"
    assert [budget.name for budget in session["test_breaks_a_block"].budgets] == ["narrow"]


def test_a_job_enforces_without_a_complaint(session: Session) -> None:
    record = session["test_is_limited_by_its_job"]

    assert record.outcome == "passed"
    assert not [note for note in record.notes if "enforce" in note]


def test_memory_that_is_refused_beside_a_job_is_a_breach(session: Session) -> None:
    record = session["test_is_refused_memory"]

    assert (record.outcome, record.ending.kind) == ("failed", "over_budget")
    assert record.budgets[0].sentence.endswith("enforce='job' refused more")


def test_what_cannot_be_enforced_here_is_said(session: Session) -> None:
    assert "enforce='rlimit' needs Linux (prlimit): watched instead" in session["test_asks_for_what_is_not_there"].notes


def test_peaks_are_the_kernels(session: Session) -> None:
    ram = session["test_holds_its_budget"].ram

    assert ram is not None
    assert ram.method == "kernel"
