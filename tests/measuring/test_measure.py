"""A function in a worker of its own: what it returns, how it ends, and what it needed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pytest_llmmem import BudgetExceeded, LlmmemError, WorkerCrashed, measure, memory_budget
from pytest_llmmem.probes import descendants
from tests.conftest import Run, needs

MB = 1_000_000
COPIES = 2 * MB
"""What a worker may copy of the pages of this process: 0.3 MB of a fresh heap, 2 MB of one that has run a thousand tests."""

linux = needs("forked workers")


def fill(megabytes: int) -> int:
    return len(b"x" * (megabytes * MB))


def hold(megabytes: int) -> int:
    """For long enough that Wine, whose peaks are no kernel's, is asked meanwhile."""
    held = b"x" * (megabytes * MB)
    time.sleep(0.5)
    return len(held)


@linux
def test_a_closure_is_measured_and_its_value_comes_back() -> None:
    size = 50 * MB

    run = measure(lambda: len(b"x" * size), name="fifty").check()

    assert run.value == size
    assert run.ending.kind == "completed"
    assert abs(run.peak_bytes - size) < COPIES + run.error_bytes
    assert run.peak_bytes <= run.peak_resident_bytes
    assert repr(run).startswith(f"<Measurement fifty: {run.peak_bytes / MB:.1f} MB unreclaimable (± ")


@linux
def test_what_is_kept_is_what_is_held_when_the_function_has_returned() -> None:
    kept: list[bytes] = []

    def step() -> None:
        kept.append(b"x" * (20 * MB))
        fill(80)

    run = measure(step).check()

    assert run.kept_bytes is not None
    assert abs(run.kept_bytes - 20 * MB) < COPIES + run.error_bytes
    assert abs(run.peak_bytes - 100 * MB) < COPIES + run.error_bytes
    assert kept == []


@linux
def test_what_a_warm_up_call_fills_once_does_not_count() -> None:
    cache: list[bytes] = []

    def step() -> int:
        if not cache:
            cache.append(b"x" * (80 * MB))
        with memory_budget(name="block"):
            return fill(20)

    cold, warm = measure(step).check(), measure(step, warmup=2, max_ram="40MB").check()

    assert cold.peak_bytes > 95 * MB
    assert abs(warm.peak_bytes - 20 * MB) < MB
    assert warm.kept_bytes is not None
    assert abs(warm.kept_bytes) < MB
    assert warm.value == 20 * MB
    assert [phase.name for phase in warm.phases] == ["block"]


@linux
def test_a_death_in_a_warm_up_call_says_so() -> None:
    run = measure(os._exit, 3, warmup=1)

    with pytest.raises(WorkerCrashed, match="exited with code 3 in setup after"):
        run.check()


@linux
def test_sending_a_value_back_counts_for_nothing() -> None:
    run = measure(lambda: bytearray(b"x") * (20 * MB)).check()

    assert len(run.value) == 20 * MB
    assert run.peak_bytes < 25 * MB


@linux
def test_arguments_reach_the_function_and_a_partial_passes_those_that_clash() -> None:
    def named(*numbers: int, name: str, factor: int) -> tuple[str, int]:
        return name, sum(numbers) * factor

    assert measure(partial(named, name="mine"), 1, 2, factor=3, name="ours").value == ("mine", 9)


@linux
def test_blocks_and_nested_measurements_are_phases() -> None:
    def step() -> None:
        with memory_budget(name="block"):
            fill(30)
        measure(fill, 20, name="inner")

    run = measure(step).check()

    assert [phase.name for phase in run.phases] == ["block", "inner"]
    assert [round(phase.peak_bytes / (10 * MB)) for phase in run.phases] == [3, 2]


@linux
def test_output_is_kept_in_order_and_printed_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    def step() -> None:
        print("first")
        os.write(2, b"second\n")
        print("third", file=sys.stderr)

    assert measure(step).output == "first\nsecond\nthird\n"
    assert capfd.readouterr() == ("", "")


@linux
@pytest.mark.parametrize(
    ("step", "timeout", "sentence"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), None, "crashed with SIGSEGV after *"),
        (lambda: os._exit(3), None, "exited with code 3 after *: it left without a report: os._exit*"),
        (lambda: time.sleep(60), 0.5, "timed out after * s*: its limit is 0.5 s"),
    ],
    ids=["crash", "exit", "hang"],
)
def test_a_death_is_a_result_and_check_raises_its_sentence(
    step: Callable[[], object], timeout: float | None, sentence: str
) -> None:
    run = measure(step, timeout=timeout)

    assert run.ending.died
    assert run.kept_bytes is None
    for raises in (run.check, lambda: run.value):
        with pytest.raises(WorkerCrashed) as raised:
            raises()
        pytest.LineMatcher([str(raised.value)]).fnmatch_lines([sentence])


@linux
def test_a_budget_is_judged_as_a_markers_is() -> None:
    over, twice = (measure(fill, size, max_ram="40MB") for size in (50, 500))

    with pytest.raises(BudgetExceeded, match=r"^max_ram is 40\.0 MB, used 5\d\.\d MB unreclaimable: 1\d\.\d MB over$"):
        over.check()
    with pytest.raises(BudgetExceeded, match=r"^max_ram is 40\.0 MB, used .* over; stopped at twice the limit after"):
        twice.check()
    assert over.value == 50 * MB
    assert "in fill" in over.stack[0]
    assert twice.peak_bytes < 200 * MB


@linux
def test_an_exception_is_raised_as_by_a_call_with_the_workers_traceback() -> None:
    def step() -> None:
        fill(30)
        raise FileNotFoundError(2, "not there", "weights.bin")

    with pytest.raises(FileNotFoundError, match=r"weights\.bin") as raised:
        measure(step)

    assert raised.value.filename == "weights.bin"
    assert "in step" in str(raised.value.__cause__)
    assert raised.value.__notes__[0].startswith("step had used 3")


class FussyError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one}+{two}")


@linux
def test_an_exception_that_cannot_be_sent_is_told_in_words() -> None:
    def step() -> None:
        raise FussyError(1, 2)

    with pytest.raises(LlmmemError, match=r"step raised .*FussyError: 1\+2") as raised:
        measure(step)

    assert "in step" in str(raised.value.__cause__)


@linux
def test_a_skip_skips() -> None:
    with pytest.raises(pytest.skip.Exception, match="no such library"):
        measure(lambda: pytest.skip("no such library"))


@linux
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (lambda: lambda: 1, r"returned a function, which cannot be sent from its worker \(.*[Cc]an't pickle"),
        (lambda: bytes(300 * 2**20), r"returned a bytes, which cannot be sent .*larger than 256 MiB"),
    ],
    ids=["function", "large"],
)
def test_a_value_that_cannot_come_back_says_so_when_it_is_asked_for(value: Callable[[], object], why: str) -> None:
    run = measure(value).check()

    with pytest.raises(LlmmemError, match=why):
        run.value  # noqa: B018 -- it is asked for


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_ram": "8GBB"}, "measure: max_ram: '8GBB' is not a limit"),
        ({"max_ram": "2 * weights"}, "measure: max_ram: '2 .* weights' is in terms of a checkpoint, and none is known"),
        ({"max_ram": "50% device"}, "measure: max_ram: '50% device' is a share of a GPU"),
        ({"max_vram": "1GB"}, "measure: max_vram: needs a GPU: "),
        ({"timeout": -1}, "measure: timeout: -1 is not a timeout"),
        ({"warmup": -1}, "measure: warmup is -1: write a number of calls, 0 or more"),
        ({"worker": "thread"}, "measure: worker is 'thread': write 'auto', 'fork' or 'spawn'"),
    ],
    ids=["size", "terms", "share", "gpu", "timeout", "warmup", "worker"],
)
def test_an_option_that_cannot_be_used_is_one_sentence(options: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        measure(fill, 1, **options)


def test_a_call_in_place_of_a_function_is_one_sentence() -> None:
    with pytest.raises(TypeError, match=r"measure: 1000000 is not a function: pass the function and its arguments"):
        measure(fill(1))


def test_a_spawned_worker_runs_what_it_can_import() -> None:
    run = measure(hold, 40, worker="spawn").check()

    assert run.value == 40 * MB
    assert abs(run.peak_bytes - 40 * MB) < COPIES + run.error_bytes


def test_a_spawned_worker_refuses_what_it_cannot_import() -> None:
    with pytest.raises(
        LlmmemError, match=r"a fresh interpreter.*, and the function or an argument cannot be sent there"
    ):
        measure(lambda: 1, worker="spawn")


@needs("a kept peak of memory")
@pytest.mark.parametrize("worker", ["spawn", pytest.param("fork", marks=linux)])
def test_a_script_measures_what_it_defines(tmp_path: Path, worker: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""
from dataclasses import dataclass
from pytest_llmmem import measure

@dataclass
class Result:
    size: int

def step(size):
    return Result(len(b"x" * size))

if __name__ == "__main__":
    run = measure(step, 40_000_000, worker={worker!r}).check()
    assert run.value == Result(40_000_000)
    print(round(run.peak_bytes / 10**7))
"""
    )

    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=60)

    assert (done.stdout, done.stderr) == ("4\n", "")


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from pytest_llmmem import measure\ndef step(): pass\nmeasure(step, worker='spawn')\n")

    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=60)

    assert "call it below if __name__ == '__main__':" in done.stderr.splitlines()[-1]


@linux
def test_a_gpu_that_is_open_makes_auto_spawn_and_fork_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_llmmem.probes.gpu_files_open", lambda pid=None: "/dev/nvidia0")
    said = r"\(?/dev/nvidia0 was opened before, and a GPU context does not survive a fork"

    assert measure(fill, 1).value == MB
    with pytest.raises(LlmmemError, match=rf"measure: fill: worker='fork': {said}: use 'auto' or 'spawn'"):
        measure(fill, 1, worker="fork")
    with pytest.raises(LlmmemError, match=rf"a fresh interpreter {said}\), and the function .* cannot be sent there"):
        measure(lambda: 1)


@linux
def test_other_threads_of_the_caller_do_no_harm() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        assert measure(fill, 10).value == 10 * MB
    finally:
        ended.set()
        thread.join()


@linux
@needs("torch")
def test_torch_works_after_it_has_computed_in_the_caller(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import torch
        from pytest_llmmem import measure

        def test_it():
            torch.ones(4_000_000).exp_()
            ran = measure(lambda: torch.ones(4_000_000).exp_().sum().item()).check()
            assert ran.value > 10_000_000
            assert "one thread" in ran.notes[0]
        """
    )

    ran.result.assert_outcomes(passed=1)


@linux
def test_measurements_in_an_isolated_test_are_phases_of_its_record(run: Callable[..., Run]) -> None:
    source = """
        import pytest
        from pytest_llmmem import measure

        @pytest.mark.max_ram("500MB")
        def test_it(memory_budget):
            with memory_budget(name="block"):
                pass
            measure(lambda: b"x" * 30_000_000, name="first")
            measure(lambda: b"x" * 60_000_000, name="second")
    """

    for options in ((), ("--llm-isolate=none",)):
        record = run(source, *options)["test_it"]

        assert record.outcome == "passed"
        assert [phase.name for phase in record.phases] == ["setup", "call", "block", "first", "second", "teardown"]
        assert [round(phase.peak_bytes / 30_000_000) for phase in record.phases[3:5]] == [1, 2]


@linux
def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = set(os.listdir("/proc/self/fd")), descendants(os.getpid())

    measure(fill, 1)
    measure(lambda: os._exit(1))

    assert list(tmp_path.iterdir()) == []
    assert (set(os.listdir("/proc/self/fd")), descendants(os.getpid())) == before
