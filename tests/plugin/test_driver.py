"""GPU memory by the driver, in real workers and through the real sampler; only NVIDIA's library is a stand-in."""

from collections.abc import Callable

import pytest

from tests.conftest import Run, needs
from tests.nvml import CONTEXT
from tests.sample_gpu import GB, plug_in

pytestmark = needs("/proc")  # by which the stand-in knows who lives

LISTS = {"lists": True, "sizes": True}


@pytest.fixture(autouse=True)
def queue(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that no other session waits in."""
    monkeypatch.setenv("TMPDIR", str(pytester.path))


def test_what_the_driver_says_is_in_the_report(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    plug_in(pytester, 24 * GB, 24 * GB, driver=LISTS)
    ran = run(
        """
        import pytest
        @pytest.fixture
        def model(card): card.allocate(3_000_000_000)
        @pytest.mark.max_vram("10GB")
        def test_it(model, card):
            card.allocate(2_000_000_000)
        """,
        "-vv",
    )

    (vram,) = ran["test_it"].vram
    assert (vram.peak_reserved_bytes, vram.peak_device_bytes) == (5 * GB, 5 * GB + CONTEXT)
    assert vram.device_method == "process"
    by_phase = {phase.name: [one.peak_device_bytes for one in phase.vram] for phase in ran["test_it"].phases}
    assert by_phase == {"setup": [3 * GB + CONTEXT], "call": [2 * GB], "teardown": [0]}
    ran.result.stdout.fnmatch_lines(
        ["*vram cuda:0 5.00 GB reserved, 5.00 GB allocated, 5.40 GB by the driver (400 MB beside torch)*"]
    )


def test_a_budget_may_count_what_the_driver_says(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    plug_in(pytester, 24 * GB, driver=LISTS)
    ran = run(
        """
        import pytest
        @pytest.mark.max_vram("5GB", count="device")
        def test_over(card): card.allocate(5_000_000_000)
        @pytest.mark.max_vram("5.5GB", count="device")
        def test_held(card): card.allocate(5_000_000_000)
        """
    )

    ran.result.assert_outcomes(passed=1, failed=1)
    ran.result.stdout.fnmatch_lines(
        [
            "*max_vram is 5.00 GB, used 5.40 GB by the driver on cuda:0: 0.40 GB over",
            "budget *max_vram is 5.00 GB, used 5.40 GB by the driver on cuda:0: 0.40 GB over",
        ]
    )


@pytest.mark.parametrize("marker", ["'5GB', count='device', on_breach='stop'", "'2GB', count='device'", "'2GB'"])
def test_a_test_is_stopped_while_it_runs(run: Callable[..., Run], pytester: pytest.Pytester, marker: str) -> None:
    plug_in(pytester, 24 * GB, driver=LISTS)
    ran = run(
        f"""
        import pytest, time
        @pytest.mark.max_vram({marker})
        def test_it(card):
            card.allocate(7_000_000_000)
            time.sleep(30)
        def test_next(): pass
        """
    )

    ran.result.assert_outcomes(passed=1, failed=1)
    record = ran["test_it"]
    assert record.ending.kind == "over_budget"
    assert record.vram[0].peak_device_bytes == 7 * GB + CONTEXT
    assert any("time.sleep" in frame or "test_it" in frame for frame in record.stack)
    ran.result.stdout.fnmatch_lines(["*max_vram is * on cuda:0: * over; stopped *in call after *"])


def test_what_a_dead_worker_held_is_known_to_the_driver(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    plug_in(pytester, 24 * GB, driver=LISTS)
    ran = run(
        """
        import os, pytest, signal, time
        @pytest.mark.max_vram("10GB")
        def test_it(card):
            card.allocate(3_000_000_000)
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )

    (vram,) = ran["test_it"].vram
    assert (vram.peak_device_bytes, vram.device_method) == (3 * GB + CONTEXT, "process")


@pytest.mark.parametrize("driver", [{"lists": False}, {"sizes": False}], ids=["nobody is listed", "without sizes"])
def test_where_the_driver_does_not_say_whose_it_is_the_whole_device_counts(
    run: Callable[..., Run], pytester: pytest.Pytester, driver: dict[str, bool]
) -> None:
    plug_in(pytester, 24 * GB, driver=driver)
    with pytester.path.joinpath("conftest.py").open("a") as file:
        # a worker that uses a device has its file open
        file.write(
            "\nfrom pytest_llmmem import probes\nprobes.gpu_files_open = lambda pid=None: pid and '/dev/nvidia0'\n"
        )
    ran = run(
        """
        import pytest
        @pytest.mark.max_vram("5GB", count="device")
        def test_it(card): card.allocate(5_000_000_000)
        """
    )

    (vram,) = ran["test_it"].vram
    assert (vram.peak_device_bytes, vram.device_method) == (5 * GB + CONTEXT, "device")
    ran.result.assert_outcomes(failed=1)


def test_what_others_hold_is_no_growth_of_a_test_that_uses_no_device(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    plug_in(pytester, 24 * GB, driver={"lists": False})
    ran = run(
        """
        import pytest
        @pytest.mark.max_vram("5GB", count="device")
        def test_it():
            import pynvml
            pynvml.hold(0, 7_000_000_000)
        """
    )

    assert ran["test_it"].vram == ()
    ran.result.assert_outcomes(passed=1)


def test_memory_over_time_is_in_the_timeline(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    plug_in(pytester, 24 * GB, driver=LISTS)
    ran = run(
        """
        import pytest, time
        @pytest.mark.max_vram("10GB")
        def test_it(card):
            card.allocate(3_000_000_000)
            held = bytearray(50_000_000)
            time.sleep(0.3)
            more = bytearray(50_000_000)
        """
    )

    assert max(ran["test_it"].timeline.vram_bytes) == 3 * GB + CONTEXT
    assert ran["test_it"].timeline.vram_bytes[0] == 0


def test_without_a_driver_to_ask_such_a_budget_is_skipped_with_the_reason(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    plug_in(pytester, 24 * GB)
    source = "import pytest\n@pytest.mark.max_vram('5GB', count='device')\ndef test_it(): pass"

    assert "it cannot be asked: Driver Not Loaded" in run(source, "-rs").text
    run(source, "--llm-require-gpu").result.assert_outcomes(failed=1)
