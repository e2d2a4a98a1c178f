"""Tests in several pytest-xdist workers on one card, or on one host: who runs beside whom."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_llmmem.workers.memory_queue import QueueTicket, Reservation
from tests.conftest import Run, needs
from tests.sample_gpu import GB, plug_in

pytestmark = [needs("xdist"), pytest.mark.skipif(not hasattr(os, "getuid"), reason="the folder is named by a user id")]

ALONE = """
    import os, pathlib, pytest, time
    @pytest.mark.MARK
    @pytest.mark.parametrize("number", range(6))
    def test_it(number, pytestconfig):
        alone = pytestconfig.rootpath / "alone"
        alone.open("x").close()
        time.sleep(0.2)
        alone.unlink()
    """
TOGETHER = """
    import pytest, time
    @pytest.mark.MARK
    @pytest.mark.parametrize("number", range(2))
    def test_it(number, pytestconfig):
        (pytestconfig.rootpath / str(number)).touch()
        while not (pytestconfig.rootpath / str(1 - number)).exists():
            time.sleep(0.01)
    """


@pytest.fixture(autouse=True)
def card(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """One card of 24 GB in every worker, which no other session waits for."""
    monkeypatch.setenv("TMPDIR", str(pytester.path))
    plug_in(pytester, 24 * GB)


@pytest.mark.parametrize(
    "mark", ["max_vram('15GB')", "max_vram('60% device')", "max_vram('1TB')", "max_ram('60% host')"]
)
def test_budgets_that_do_not_fit_together_take_turns(run: Callable[..., Run], mark: str) -> None:
    ran = run(ALONE.replace("MARK", mark), "-n2")

    ran.result.assert_outcomes(passed=6)


@pytest.mark.parametrize("mark", ["max_vram('10GB')", "max_ram('40% host')", "in_worker"])
def test_budgets_that_fit_run_together(run: Callable[..., Run], mark: str) -> None:
    ran = run(TOGETHER.replace("MARK", mark), "-n2", "--llm-timeout=30")

    ran.result.assert_outcomes(passed=2)


def test_tests_of_two_cards_run_together(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    plug_in(pytester, 24 * GB, 24 * GB)
    ran = run(
        """
        import pytest, time
        @pytest.mark.parametrize(
            "number", [pytest.param(n, marks=pytest.mark.max_vram("15GB", device=f"cuda:{n}")) for n in range(2)]
        )
        def test_it(number, pytestconfig):
            (pytestconfig.rootpath / str(number)).touch()
            while not (pytestconfig.rootpath / str(1 - number)).exists():
                time.sleep(0.01)
        """,
        "-n2",
        "--llm-timeout=30",
    )

    ran.result.assert_outcomes(passed=2)


def test_a_group_keeps_its_memory_between_its_tests(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    group = """
        import pytest, time
        pytestmark = [pytest.mark.in_worker(scope="module"), pytest.mark.max_vram("15GB")]
        def test_first(pytestconfig): (pytestconfig.rootpath / "alone").open("x").close()
        def test_second(pytestconfig): time.sleep(0.2)
        def test_last(pytestconfig): (pytestconfig.rootpath / "alone").unlink()
        """
    pytester.makepyfile(test_other=group)

    ran = run(group, "-n2", "--dist=loadfile")

    ran.result.assert_outcomes(passed=6)


def test_a_dead_test_leaves_its_turn_to_the_next(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os, pytest
        @pytest.mark.max_vram("15GB")
        @pytest.mark.parametrize("number", range(4))
        def test_it(number): os.abort()
        """,
        "-n2",
    )

    ran.result.assert_outcomes(failed=4)


def test_a_long_wait_is_said(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    folder = Path(pytester.path, f"pytest-llmmem-{os.getuid()}")
    place = QueueTicket.take(folder, [Reservation(resource="card-0", size_bytes=24 * GB, capacity_bytes=24 * GB)])

    def leave_when_another_waits() -> None:
        while '"number": 2' not in (folder / "tickets.json").read_text():
            time.sleep(0.05)
        time.sleep(1.2)
        place.leave()

    with pytester.path.joinpath("conftest.py").open("a") as file:
        file.write("\nfrom pytest_llmmem.plugin.run import queue as turns\nturns._TELL_AFTER_S = 0.5\n")
    leaving = threading.Thread(target=leave_when_another_waits)
    leaving.start()
    ran = run("import pytest\n@pytest.mark.max_vram('1GB')\ndef test_it(): pass")
    leaving.join()

    (note,) = ran["test_it"].notes
    assert note.startswith("it waited ")
    ran.result.stdout.fnmatch_lines(["llmmem: *::test_it waits until other tests have left room for its budgets"])


@pytest.mark.parametrize("name", ["", "/tickets.json"])
def test_a_queue_that_cannot_be_used_is_said(run: Callable[..., Run], pytester: pytest.Pytester, name: str) -> None:
    in_the_way = Path(pytester.path, f"pytest-llmmem-{os.getuid()}{name}")
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("not ours", encoding="utf-8")

    ran = run("import pytest\n@pytest.mark.max_vram('1GB')\ndef test_it(): pass")

    ran.result.assert_outcomes(passed=1)
    (note,) = ran["test_it"].notes
    assert note.startswith("it did not wait for other tests to leave room for its budgets: ")


def test_a_queue_that_is_tidied_away_fails_no_test(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    ran = run(
        f"""
        import pytest, shutil
        @pytest.mark.max_vram("1GB")
        @pytest.mark.parametrize("number", range(2))
        def test_it(number): shutil.rmtree("{pytester.path}/pytest-llmmem-{os.getuid()}")
        """
    )

    ran.result.assert_outcomes(passed=2)
