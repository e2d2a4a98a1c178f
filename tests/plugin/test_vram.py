"""GPU memory in real workers, by the counters of a card that is not there."""

from collections.abc import Callable

import pytest

from tests.card import GB, plug_in
from tests.conftest import Run


@pytest.fixture
def card(pytester: pytest.Pytester) -> None:
    """One card of 24 GB in every worker."""
    plug_in(pytester, 24 * GB)


def test_the_peaks_of_a_device_are_recorded_for_the_test_and_each_phase(run: Callable[..., Run], card: None) -> None:
    ran = run(
        """
        import pytest
        @pytest.fixture
        def model(card):
            card.allocate(7_000_000_000)
            card.free(4_000_000_000)
            card.empty_cache()
        @pytest.mark.in_worker
        def test_it(model, card):
            card.allocate(2_000_000_000)
            card.free(2_000_000_000)
            card.allocate(1_000_000_000)
        """,
        "-vv",
    )

    record = ran["test_it"]
    (vram,) = record.vram
    assert (vram.device, vram.peak_allocated_bytes, vram.peak_reserved_bytes) == ("cuda:0", 7 * GB, 7 * GB)
    assert (vram.peak_device_bytes, vram.baseline_bytes, vram.method) == (None, 0, "allocator")
    reserved = {phase.name: [one.peak_reserved_bytes for one in phase.vram] for phase in record.phases}
    assert reserved == {"setup": [7 * GB], "call": [2 * GB], "teardown": [0]}
    ran.result.stdout.fnmatch_lines(["*vram cuda:0 7.00 GB reserved, 7.00 GB allocated (allocator)"])


def test_a_worker_that_dies_leaves_what_its_last_boundary_read(run: Callable[..., Run], card: None) -> None:
    ran = run(
        """
        import os, pytest, signal
        @pytest.fixture
        def model(card): card.allocate(3_000_000_000)
        @pytest.mark.in_worker
        def test_it(model, card):
            card.allocate(2_000_000_000)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )

    record = ran["test_it"]
    assert [one.peak_reserved_bytes for one in record.vram] == [3 * GB]
    assert record.ending.signal == "SIGKILL"
    assert [note for note in record.notes if "between then and its death is unknown" in note]
    ran.result.stdout.fnmatch_lines(["vram      cuda:0 3.00 GB reserved, 3.00 GB allocated: setup 3.00 GB"])


def test_what_an_earlier_test_left_in_a_shared_worker_is_the_baseline(run: Callable[..., Run], card: None) -> None:
    ran = run(
        """
        import pytest
        pytestmark = pytest.mark.in_worker(scope="module")
        @pytest.fixture(scope="module")
        def model(card): card.allocate(3_000_000_000)
        def test_first(model): pass
        def test_second(model, card):
            card.allocate(1_000_000_000)
        """
    )

    assert [(one.peak_reserved_bytes, one.baseline_bytes) for one in ran["test_first"].vram] == [(3 * GB, 0)]
    assert [(one.peak_reserved_bytes, one.baseline_bytes) for one in ran["test_second"].vram] == [(1 * GB, 3 * GB)]


def test_a_test_that_uses_no_device_has_no_readings(run: Callable[..., Run], card: None) -> None:
    ran = run("import pytest\n@pytest.mark.in_worker\ndef test_it(): pass")

    assert ran["test_it"].vram == ()
    assert "vram" not in ran.text
