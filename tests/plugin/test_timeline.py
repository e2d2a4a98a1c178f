"""The timeline of a real test: a line that stays up as long as its memory is held."""

from collections.abc import Callable

from tests.conftest import Run, needs

MB = 10**6

pytestmark = needs("/proc")


def assert_one_hill(ran: Run, height_bytes: int) -> None:
    """What is held rises above the height once, and falls below it once."""
    timeline = ran["test_it"].timeline
    assert timeline is not None
    above = [held > height_bytes for held in timeline.unreclaimable_bytes]
    assert sum(now and not before for before, now in zip([False, *above], above, strict=False)) == 1


def test_inherited_pages_that_were_copied_stay_on_the_line(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest, time
        inherited = bytearray(b"x" * 60_000_000)
        @pytest.mark.in_worker
        def test_it(memory_budget):
            with memory_budget():
                inherited[::4096] = b"y" * len(inherited[::4096])
            time.sleep(0.2)
            keep = b"x" * 2_000_000
            time.sleep(0.2)
        """
    )

    assert_one_hill(ran, 55 * MB)


def test_what_a_child_holds_stays_on_the_line(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os, pytest, time
        @pytest.mark.in_worker
        def test_it():
            read, write = os.pipe()
            child = os.fork()
            if not child:
                os.close(write)
                keep = b"x" * 60_000_000
                os.read(read, 1)  # until the parent is done
                os._exit(0)
            for _ in range(10):
                keep = b"x" * 1_000_000
                time.sleep(0.1)
            os.close(write)
            os.waitpid(child, 0)
        """
    )

    assert_one_hill(ran, 55 * MB)


def test_the_line_shows_no_spike_that_no_phase_knows(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest, time
        inherited = bytearray(b"x" * 60_000_000)
        @pytest.fixture
        def spike():
            block = b"x" * 100_000_000
            time.sleep(0.1)
        @pytest.mark.in_worker
        def test_it(spike):
            inherited[::4096] = b"y" * len(inherited[::4096])
            time.sleep(0.1)
        """
    )

    record = ran["test_it"]
    assert record.timeline is not None
    assert record.ram is not None
    call = next(phase for phase in record.phases if phase.name == "call")
    line = zip(record.timeline.seconds, record.timeline.unreclaimable_bytes, strict=True)
    in_call = max(held for second, held in line if second > call.started_s + 0.01)
    assert max(record.timeline.unreclaimable_bytes) == record.ram.peak_bytes
    assert record.ram.peak_bytes < 110 * MB
    assert in_call < 70 * MB
