"""Under every failure, the memory of the processes that the test has started."""

from collections.abc import Callable

from tests.conftest import Run, needs

pytestmark = needs("/proc")

HOLDING = """
    import ctypes, multiprocessing, time, pytest

    def hold(ready, go):
        held = bytearray(b"x") * 25_000_000
        ready.release(); go.acquire()

    def started(method, count=4):
        context = multiprocessing.get_context(method)
        ready, go = context.Semaphore(0), context.Semaphore(0)
        for _ in range(count):
            context.Process(target=hold, args=(ready, go), daemon=True).start()
        for _ in range(count):
            ready.acquire()
        time.sleep(0.3)
        return lambda: [go.release() for _ in range(count)]
"""


def test_a_broken_budget_and_a_crash_say_what_was_in_children(run: Callable[..., Run]) -> None:
    ran = run(
        HOLDING
        + """
    @pytest.mark.max_ram("70MB", on_breach="finish")
    def test_budget():
        end = started("fork")
        end()

    @pytest.mark.in_worker
    def test_crash():
        end = started("spawn")
        ctypes.string_at(0)

    @pytest.mark.max_ram("70MB")
    def test_alone():
        held = bytearray(b"x") * 100_000_000
        """
    )

    ran.result.assert_outcomes(failed=3)
    budget, crash, alone = (ran[f"test_{name}"].children for name in ("budget", "crash", "alone"))
    assert budget is not None
    assert crash is not None
    assert (budget.count, budget.forked, budget.commands) == (4, 4, ("forked from the test",))
    assert 100_000_000 <= budget.bytes <= ran["test_budget"].ram.peak_bytes
    assert (crash.forked, crash.commands[0].split()[-1]) == (0, "spawn_main")
    assert crash.bytes >= 100_000_000
    assert alone is None
    ran.result.stdout.fnmatch_lines_random([
        "children  of it * MB in 4 children: forked from the test",
        "children  of it * MB in 5 children: `python* -c … spawn_main`, `python* -c … resource_tracker`",
    ])  # fmt: skip


def test_children_that_were_gone_at_the_peak_are_no_part_of_it(run: Callable[..., Run]) -> None:
    ran = run(
        HOLDING
        + """
    @pytest.mark.max_ram("50MB", on_breach="finish")
    def test_it():
        started("fork", count=1)()
        time.sleep(0.3)
        held = bytearray(b"x") * 90_000_000
        """
    )

    assert ran["test_it"].children is not None
    assert not ran["test_it"].children.in_peak
    ran.result.stdout.fnmatch_lines(["children  beside it, at another moment, * MB in 1 child: forked from the test"])
