"""What a block keeps, and what each call of a function leaves."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from pytest_llmmem import BudgetExceeded, measure, memory_budget, memory_growth
from tests.conftest import Run, needs

MB = 1_000_000


def test_a_list_that_keeps_a_megabyte_a_call_grows_by_one() -> None:
    kept: list[bytes] = []

    growth = memory_growth(lambda: kept.append(b"x" * MB))

    assert abs(growth.per_call_bytes - MB) <= 0.05 * MB
    assert growth.error_bytes < 0.05 * MB
    assert len(kept) == 23


BLOCKED = """
import ctypes
from pytest_llmmem import memory_growth

blocks = [b"x" * 30_000_000 for _ in range(3)]  # the first ends raise the threshold: the last one is in the heap
while blocks:
    blocks.pop()
block = b"x" * 30_000_000
ctypes.CDLL(None).sbrk(4096)  # as another allocator in the process would: the heap can no longer give back its end
del block
kept = []
print(memory_growth(lambda: kept.append(b"x" * 1_000_000)).per_call_bytes)
"""


@needs("glibc")
def test_memory_that_the_heap_cannot_give_back_does_not_hide_growth() -> None:
    ran = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True)

    assert int(ran.stdout) == pytest.approx(MB, rel=0.05)


def test_a_cache_that_fills_up_and_stops_does_not_grow() -> None:
    cache: dict[int, bytes] = {}

    def step() -> None:
        if len(cache) < 3:
            cache[len(cache)] = b"x" * (5 * MB)

    growth = memory_growth(step, warmup=3)

    assert abs(growth.per_call_bytes) <= growth.error_bytes < 0.05 * MB


def test_garbage_that_waits_for_its_collection_is_no_growth() -> None:
    def step() -> None:
        cycle: list[object] = [b"x" * MB]
        cycle.append(cycle)

    growth = memory_growth(step)

    assert abs(growth.per_call_bytes) <= growth.error_bytes


@needs("forked workers")
def test_what_the_function_raises_ends_the_calls_and_their_phase() -> None:
    def run() -> list[str]:
        with memory_budget(name="around"), pytest.raises(ZeroDivisionError):
            memory_growth(lambda: 1 / 0)
        with memory_budget(name="after"):
            pass
        return []

    assert [phase.name for phase in measure(run).check().phases] == ["around", "growth", "after"]


def test_numbers_of_calls_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="memory_growth: repeat is 0: write a number of calls, 2 or more"):
        memory_growth(lambda: None, repeat=0)


def test_a_block_is_judged_by_what_it_keeps() -> None:
    with memory_budget("50MB", keeps="10MB", name="fits") as spent:
        kept = b"x" * (5 * MB)
        assert b"x" * (20 * MB)

    assert spent.kept_bytes is not None
    assert abs(spent.kept_bytes - 5 * MB) < MB
    with (
        pytest.raises(
            BudgetExceeded, match=r"^keeps is 10\.0 MB, kept (199|200)\.\d MB in 'leaks': (189|190)\.\d MB over$"
        ),
        memory_budget("500MB", keeps="10MB", name="leaks"),
    ):
        leaked = b"x" * (200 * MB)
    assert len(kept) + len(leaked) == 205 * MB


def test_a_limit_of_what_is_kept_that_cannot_be_read_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="memory_budget 'it': keeps: '1MBB' is not a limit"):
        memory_budget(keeps="1MBB", name="it")


@needs("fork")
def test_a_block_in_a_child_of_the_test_is_measured_there(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os
        import pytest

        def test_it(memory_budget, tmp_path):
            child = os.fork()
            if not child:
                with memory_budget(name="child") as spent:
                    b"x" * 30_000_000
                (tmp_path / "peak").write_text(str(spent.peak_bytes))
                os._exit(0)
            os.waitpid(child, 0)
            assert abs(int((tmp_path / "peak").read_text()) - 30_000_000) < 2_000_000
        """
    )

    ran.result.assert_outcomes(passed=1)


@pytest.mark.parametrize("options", [(), ("--llm-isolate=none",)], ids=["isolated", "in process"])
def test_a_test_is_called_again_and_judged_by_what_each_call_leaves(
    run: Callable[..., Run], options: tuple[str, ...]
) -> None:
    ran = run(
        """
        import pytest, unittest
        kept = []

        @pytest.fixture
        def size(): return 1_000_000

        @pytest.mark.max_growth("100kB", repeat=5, warmup=2)
        @pytest.mark.parametrize("times", [2])
        def test_leaks(size, times): kept.append(b"x" * size * times)
        @pytest.mark.max_growth("100kB")
        def test_holds(size): assert b"x" * size
        @pytest.mark.xfail(strict=True)
        @pytest.mark.max_growth("100kB")
        def test_is_expected_to_leak(size): kept.append(b"x" * size)
        @pytest.mark.max_growth("100kB")
        def test_raises(size): assert len(kept) < 0
        def test_uses_the_fixture(memory_growth):
            assert memory_growth(lambda: kept.append(b"x" * 1_000_000)).per_call_bytes > 900_000
        """,
        *options,
    )

    ran.result.assert_outcomes(failed=2, passed=2, xfailed=1)
    (broken,) = ran["test_leaks[2]"].budgets
    assert (broken.kind, broken.limit_bytes, broken.held) == ("max_growth", 100_000, False)
    assert abs(broken.actual_bytes - 2 * MB) <= 0.05 * MB
    ran.result.stdout.fnmatch_lines(["max_growth is 100 kB, grew by * kB a call: * kB over"])
    assert ran["test_holds"].budgets[0].held


def test_what_cannot_be_called_again_is_one_sentence(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest, unittest

        @pytest.mark.max_growth("100kB")
        class TestOld(unittest.TestCase):
            def test_old(self): pass
        @pytest.mark.max_growth("100kB")
        async def test_coroutine(): pass
        @pytest.mark.max_growth("100kB", repeat=1)
        def test_once(): pass
        """
    )

    ran.result.assert_outcomes(failed=3)
    ran.result.stdout.fnmatch_lines(
        [
            "max_growth: only a plain test function can be called again: let this test use memory_growth",
            "max_growth: repeat is 1: write a number of calls, 2 or more",
        ]
    )
