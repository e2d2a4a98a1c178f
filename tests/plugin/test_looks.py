"""A parent that does not look in time, as on a busy machine: what it missed is no failure, and is said."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, needs

MB = 10**6
pytestmark = needs("/proc")

LATE = """
    import os, time
    from pathlib import Path
    from pytest_llmmem.probes import Memory

    parent = os.getpid()

    def late(look):
        def wait_and_look(self):
            while os.getpid() == parent and Path("begun").exists() and not Path("done").exists():
                time.sleep(0.001)
            return look(self)
        return wait_and_look

    for name in ("read_growth", "read", "read_pages"):
        setattr(Memory, name, late(getattr(Memory, name)))
"""
"""No look between the two files."""


@pytest.fixture
def run_late(run: Callable[..., Run], pytester: pytest.Pytester) -> Callable[..., Run]:
    pytester.makeconftest(LATE)
    return run


@pytest.mark.parametrize("on_breach", ["finish", "stop"])
def test_a_budget_that_only_the_error_breaks_is_held_with_a_note(run_late: Callable[..., Run], on_breach: str) -> None:
    ran = run_late(
        f"""
        import pytest
        from pathlib import Path
        @pytest.mark.max_ram("20MB", on_breach={on_breach!r})
        def test_it():
            Path("begun").touch()
            spike = b"x" * 60_000_000
            del spike
            Path("done").touch()
        """
    )

    ran.result.assert_outcomes(passed=1)
    record = ran["test_it"]
    (budget,) = record.budgets
    assert record.ending.kind == "completed"
    assert budget.held
    assert budget.actual_bytes > 59 * MB
    assert budget.actual_bytes - budget.error_bytes < 20 * MB
    ran.result.stdout.fnmatch_lines(
        ["note: *max_ram is 20.0 MB, used * MB unreclaimable: * MB over, uncertain by * MB, so it is no failure: *"]
    )


def test_a_block_that_only_the_error_breaks_is_held_with_a_note(run_late: Callable[..., Run]) -> None:
    ran = run_late(
        """
        from pathlib import Path
        def test_it(memory_budget):
            with memory_budget("20MB", name="spike"):
                Path("begun").touch()
                spike = b"x" * 60_000_000
                del spike
                Path("done").touch()
        """
    )

    ran.result.assert_outcomes(passed=1)
    assert [note for note in ran["test_it"].notes if "in 'spike'" in note and "uncertain by" in note]


def test_what_is_over_by_more_than_the_error_is_broken(run_late: Callable[..., Run]) -> None:
    ran = run_late(
        """
        import pytest, time
        from pathlib import Path
        @pytest.mark.max_ram("100MB")
        def test_it():
            Path("begun").touch()
            held = b"x" * 120_000_000
            spike = b"x" * 10_000_000
            del spike
            Path("done").touch()
            time.sleep(0.1)
        """
    )

    ran.result.assert_outcomes(failed=1)
    assert not ran["test_it"].budgets[0].held


def test_an_uncertain_run_is_repeated_where_that_is_asked_for(
    run_late: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    ran = run_late(
        """
        import pytest
        from pathlib import Path
        @pytest.mark.max_ram("20MB")
        def test_it():
            if not Path("done").exists():
                Path("begun").touch()
                spike = b"x" * 60_000_000
                del spike
                Path("done").touch()
        """,
        "--llm-repeat=2",
    )

    ran.result.assert_outcomes(passed=1)
    record = ran["test_it"]
    assert len(record.run_peaks_bytes) == 2
    assert record.budgets[0].actual_bytes < 20 * MB
    assert not record.notes


def test_a_file_that_is_mapped_and_unmapped_between_two_looks_is_not_taken_for_memory(
    run_late: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    Path(pytester.path, "mapped.bin").write_bytes(b"x" * 100 * MB)

    ran = run_late(
        """
        import mmap, pytest
        from pathlib import Path
        @pytest.mark.in_worker
        def test_it():
            with open("mapped.bin", "rb") as file:
                Path("begun").touch()
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                    assert sum(view[page] for page in range(0, len(view), mmap.PAGESIZE))
            Path("done").touch()
        """
    )

    ram = ran["test_it"].ram
    assert ram is not None
    assert ram.peak_bytes < 20 * MB
    assert ram.peak_resident_bytes > 99 * MB


def test_a_look_that_a_boundary_has_overtaken_counts_for_no_phase(run_late: Callable[..., Run]) -> None:
    ran = run_late(
        """
        import pytest, time
        from pathlib import Path
        @pytest.fixture
        def slow():
            Path("begun").touch()
            time.sleep(0.1)  # a look begins
        @pytest.mark.in_worker
        def test_it(slow):
            held = b"x" * 60_000_000
            Path("done").touch()  # and takes place
            time.sleep(0.2)
        """
    )

    phases = {phase.name: phase.peak_bytes for phase in ran["test_it"].phases}
    assert phases["setup"] < 20 * MB
    assert phases["call"] > 59 * MB


def test_an_rlimit_leaves_the_room_that_an_unseen_spike_has_given_back(run_late: Callable[..., Run]) -> None:
    ran = run_late(
        """
        import pytest, time
        from pathlib import Path
        @pytest.mark.max_ram("200MB", enforce="rlimit")
        def test_it():
            Path("begun").touch()
            spike = b"x" * 160_000_000
            del spike
            Path("done").touch()
            time.sleep(0.1)
            held = b"x" * 120_000_000
        """
    )

    ran.result.assert_outcomes(passed=1)


BEFORE = """
    import pytest
    @pytest.mark.in_worker
    def test_it(): held = b"x" * 100_000_000
"""
GROWN = """
    import pytest
    from pathlib import Path
    @pytest.mark.in_worker
    def test_it():
        if MISSED_AGAIN: Path("done").unlink(missing_ok=True)
        Path("begun").touch()
        held = b"x" * 200_000_000
        del held
        Path("done").touch()
"""


def test_growth_that_the_error_would_hide_is_measured_again(run_late: Callable[..., Run]) -> None:
    run_late(BEFORE, "--llm-baseline-update")

    ran = run_late(GROWN.replace("MISSED_AGAIN", "False"))

    record = ran["test_it"]
    assert record.baseline is not None
    assert (record.outcome, record.baseline.verdict) == ("failed", "grew")
    assert [note for note in record.notes if note.startswith("run 2 times: ")]


def test_growth_that_cannot_be_judged_is_said_so(run_late: Callable[..., Run]) -> None:
    run_late(BEFORE, "--llm-baseline-update")

    ran = run_late(GROWN.replace("MISSED_AGAIN", "True"))

    record = ran["test_it"]
    assert record.baseline is not None
    assert (record.outcome, record.baseline.verdict) == ("passed", "uncertain")
    assert [note for note in record.notes if note.startswith("run 3 times: ")]
    ran.result.stdout.fnmatch_lines(["*test_it: not judged: baseline is * MB, used * MB unreclaimable, *"])


def test_a_baseline_is_measured_again_before_it_is_written(run_late: Callable[..., Run]) -> None:
    ran = run_late(GROWN.replace("MISSED_AGAIN", "False"), "--llm-baseline-update")

    ram = ran["test_it"].ram
    assert ram is not None
    assert ram.error_bytes < 20 * MB


def test_a_baseline_that_can_judge_nothing_is_said_to(run_late: Callable[..., Run]) -> None:
    ran = run_late(GROWN.replace("MISSED_AGAIN", "True"), "--llm-baseline-update")

    ran.result.stdout.fnmatch_lines(["llm-baselines.json: *test_it can be off by * MB, more than its tolerance: *"])


def test_a_test_is_not_run_again_beside_a_baseline_that_can_judge_nothing(run_late: Callable[..., Run]) -> None:
    run_late(GROWN.replace("MISSED_AGAIN", "True"), "--llm-baseline-update")

    ran = run_late(BEFORE)

    record = ran["test_it"]
    assert record.baseline is not None
    assert record.baseline.verdict == "uncertain"
    assert not record.notes
