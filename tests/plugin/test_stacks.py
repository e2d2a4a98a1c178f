"""The stacks in reports of real workers: whose, of which moment, and both ends of deep ones."""

from collections.abc import Callable

from pytest_llmmem.core.records import TestRecord
from tests.conftest import Run, needs

pytestmark = needs("real-time signals")

DEEP = """
    import ctypes, os, signal, time
    import pytest

    def deeper(depth, act):
        if depth: return deeper(depth - 1, act)
        return act()

    def grow():
        held = []
        for _ in range(65): held.append(b"x" * 1_000_000)
        time.sleep(0.5)
    def grow_on():
        held = []
        while True: held.append(b"x" * 1_000_000)
    def crash(): grow(), ctypes.string_at(0)
    def killed(): grow(), os.kill(os.getpid(), signal.SIGKILL)
"""


def functions(record: TestRecord) -> list[str]:
    return [frame.rpartition(" in ")[2] for frame in record.stack]


def test_a_deep_stack_keeps_the_innermost_frames_and_the_test(run: Callable[..., Run]) -> None:
    ran = run(
        DEEP
        + """
    @pytest.mark.max_ram("40MB")
    def test_crosses(): deeper(500, grow)
    @pytest.mark.max_ram("40MB")
    def test_is_stopped_at_twice(): deeper(500, grow_on)
    @pytest.mark.in_worker(timeout=1)
    def test_times_out(): deeper(500, lambda: time.sleep(100))
    """
    )

    for name, innermost, at in (
        ("test_crosses", "grow", "the crossing"),
        ("test_is_stopped_at_twice", "grow_on", "the crossing"),
        ("test_times_out", "<lambda>", "the end"),
    ):
        record = ran[name]
        own = functions(record)[: record.stack_own]
        assert (own[0], own[-1], record.stack_at) == (innermost, name, at)
        assert record.stack_cut is not None
        assert record.stack_cut > 200
        assert own.count("deeper") < 200
    ran.result.stdout.fnmatch_lines(
        [
            "stack     at the crossing, yours first; * frames in the middle are cut",
            "*… * more of yours",
            "*in test_crosses",
        ]
    )


def test_a_death_that_leaves_no_time_says_that_the_outer_end_is_cut(run: Callable[..., Run]) -> None:
    ran = run(
        DEEP
        + """
    @pytest.mark.max_ram("40MB", on_breach="stop")
    def test_is_stopped(): deeper(500, grow_on)
    @pytest.mark.in_worker
    def test_crashes(): deeper(500, crash)
    """
    )

    for name, innermost in (("test_is_stopped", "grow_on"), ("test_crashes", "crash")):
        record = ran[name]
        assert (record.stack_cut, record.stack_at) == (None, "the end")
        assert innermost in functions(record)[: record.stack_own]
    ran.result.stdout.fnmatch_lines(["stack     at the end, yours first; the outer end is cut"])


def test_the_stack_of_a_crash_is_that_of_the_crash_though_a_budget_was_crossed_before(run: Callable[..., Run]) -> None:
    ran = run(
        DEEP
        + """
    @pytest.mark.max_ram("60MB")
    def test_crashes(): crash()
    @pytest.mark.max_ram("60MB")
    def test_is_killed(): killed()
    """
    )

    crashed, is_killed = ran["test_crashes"], ran["test_is_killed"]
    assert crashed.ending.signal == "SIGSEGV"
    assert (functions(crashed)[0], crashed.stack_at) == ("crash", "the end")
    assert (is_killed.ending.signal, is_killed.stack_at) == ("SIGKILL", "the crossing")  # a SIGKILL leaves none
    assert "grow" in functions(is_killed)


def test_growth_beyond_a_baseline_has_the_stack_of_the_moment(run: Callable[..., Run]) -> None:
    source = """
    import pytest

    def grow(size):
        return bytearray(size)

    @pytest.mark.in_worker
    def test_grows(): held = [grow({}) for _ in range(4)]

    @pytest.mark.in_worker
    def test_stays(): held = grow(50_000_000)
    """
    run(source.format(20_000_000), "--llm-baseline-update").result.assert_outcomes(passed=2)

    grown = run(source.format(60_000_000))

    grown.result.assert_outcomes(passed=1, failed=1)
    record = grown["test_grows"]
    assert (functions(record)[0], functions(record)[record.stack_own - 1]) == ("grow", "test_grows")
    assert record.stack_at == "the crossing"
    assert grown["test_stays"].stack == ()
    grown.result.stdout.fnmatch_lines(["*llmmem: baseline*", "stack     at the crossing, yours first", "*in grow"])


ACCEPTS = """
    import socket, threading, time
    import pytest

    # a thread of the imports does not block the signals that ask for stacks
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=server.accept, daemon=True).start()

    @pytest.mark.in_worker(timeout=2)
    def test_sleeps():
        def my_wait(): time.sleep(100)
        my_wait()
"""


def test_a_timeout_in_a_spawned_worker_has_the_stack_of_the_test_not_of_a_helper_thread(
    run: Callable[..., Run],
) -> None:
    ran = run(ACCEPTS, "--llm-worker=spawn")

    assert "in my_wait" in ran["test_sleeps"].stack[0]
