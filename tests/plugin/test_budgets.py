"""Budgets in real workers: what fails, what is stopped, and what is said."""

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, needs

MB = 10**6
linux = needs("/proc")


@needs("a kept peak of memory")
def test_a_test_over_its_budget_fails_and_says_what_would_have_passed(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest
        @pytest.mark.max_ram("50MB")
        def test_it(): b"x" * 80_000_000
        """
    )

    ran.result.assert_outcomes(failed=1)
    ran.result.stdout.fnmatch_lines(
        [
            "max_ram is 50.0 MB, used * MB unreclaimable: * MB over",
            "*passes*with * MB or more*",
            "*stack*at the crossing*",
            "*test_a_test_over*.py:3 in test_it*",
        ]
    )
    record = ran["test_it"]
    assert (record.ending.kind, record.outcome, record.budgets[0].held) == ("over_budget", "failed", False)
    assert record.ram is not None
    copied = 2 * MB  # of the pages that the worker inherits pytest writes to nearly so many
    assert 80 * MB - record.ram.error_bytes <= record.ram.peak_bytes <= 80 * MB + copied + record.ram.error_bytes


def test_a_breach_is_one_sentence_on_every_surface(
    run: Callable[..., Run], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = Path(pytester.path, "summary.md")
    source = """
        import pytest, time
        def hold(nbytes):
            held = b"x" * nbytes
            time.sleep(0.2)
        @pytest.mark.max_ram("0.05GB + 10MB")
        def test_it(): hold(82_000_000)
        @pytest.mark.max_ram("0.05GB + 10MB")
        def test_own_failure():
            hold(82_000_000)
            assert not "its own"
    """
    pytester.makeconftest(f"import os; os.environ.update(GITHUB_ACTIONS='true', GITHUB_STEP_SUMMARY={str(summary)!r})")

    ran = run(source, "--llm-report=r.html", "--llm-report=r.md", "--junitxml=r.xml", "--llm-report=r.trace.json")

    for name in ("test_it", "test_own_failure"):
        (budget,) = ran[name].budgets
        assert re.fullmatch(
            r"max_ram is 0\.06\d* GB \(0\.05GB \+ 10MB\), used 0\.\d+ GB unreclaimable: 0\.0[23]\d* GB over",
            budget.sentence,
        )
        surfaces = {
            file: Path(pytester.path, file).read_text(encoding="utf-8")
            for file in ("r.html", "r.md", "r.trace.json", "summary.md")
        }
        testcases = html.unescape(Path(pytester.path, "r.xml").read_text(encoding="utf-8")).split("<testcase")
        surfaces["r.xml"] = next(each for each in testcases if f'name="{name}"' in each)
        surfaces["terminal"] = ran.text.split("::error")[0]
        surfaces["annotation"] = ran.text.split("::error", 1)[1]
        assert [where for where, text in surfaces.items() if budget.sentence not in text.replace("\\", "")] == []


def test_a_model_loaded_in_a_fixture_counts(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest
        @pytest.fixture
        def big(): yield b"x" * 80_000_000
        @pytest.mark.max_ram("50MB")
        def test_it(big): pass
        """
    )

    ran.result.assert_outcomes(failed=1)
    phases = {phase.name: phase.peak_bytes for phase in ran["test_it"].phases}
    assert phases["setup"] > 79 * MB > phases["call"]


def test_what_the_parent_holds_never_counts(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest
        big = b"x" * 200_000_000
        @pytest.mark.max_ram("50MB")
        def test_it(): assert big[-1]
        """
    )

    ran.result.assert_outcomes(passed=1)


@linux
def test_mapped_files_count_as_resident_and_not_as_unreclaimable(run: Callable[..., Run]) -> None:
    source = """
        import mmap, pytest
        @pytest.fixture
        def shard(tmp_path):
            path = tmp_path / "shard"
            path.write_bytes(b"x" * 80_000_000)
            with path.open() as file: yield mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
        @pytest.mark.max_ram("50MB"COUNT)
        def test_it(shard): sum(shard[::4096])
        """

    assert run(source.replace("COUNT", ""), "--llm-isolate=marked")["test_it"].budgets[0].actual_bytes < 85 * MB
    ran = run(source.replace('b"x" * 80_000_000', 'b""); path.open("ab").truncate(80_000_000').replace("COUNT", ""))
    assert ran["test_it"].outcome == "passed"
    ran = run(source.replace("COUNT", ", count='resident'"))
    assert ran["test_it"].outcome == "failed"


@needs("a kept peak of memory")
def test_a_block_has_its_own_budget_and_fails_where_it_ends(run: Callable[..., Run]) -> None:
    ran = run(
        """
        def test_over(memory_budget):
            with memory_budget("10MB", name="generate") as spent:
                b"x" * 18_000_000
        def test_held(memory_budget):
            with memory_budget("50MB", name="generate") as spent:
                b"x" * 18_000_000
            assert 17_500_000 <= spent.peak_bytes <= 24_000_000
            assert spent.limit_bytes == 50_000_000
        def test_nested(memory_budget):
            with memory_budget(name="outer") as outer:
                keep = b"x" * 18_000_000
                with memory_budget(name="inner") as inner:
                    b"x" * 40_000_000
            assert inner.peak_bytes < 46_000_000 < outer.peak_bytes
        def test_bad(memory_budget):
            with memory_budget("8GBB"): pass
        def test_error_inside_wins(memory_budget):
            with memory_budget("10MB"):
                b"x" * 18_000_000
                raise KeyError("mine")
        """
    )

    assert {test.nodeid.rpartition("::")[2]: test.outcome for test in ran.record.tests} == {
        "test_over": "failed",
        "test_held": "passed",
        "test_nested": "passed",
        "test_bad": "failed",
        "test_error_inside_wins": "failed",
    }
    ran.result.stdout.fnmatch_lines(
        [
            "E * pytest_llmmem.BudgetExceeded: memory_budget is 10.0 MB, used * MB unreclaimable in 'generate': * MB over",
            "E * ValueError: memory_budget 'memory_budget': '8GBB' is not a limit *",
            "E * KeyError: 'mine'",
        ]
    )
    assert "generate" in [phase.name for phase in ran["test_held"].phases]


@linux
@pytest.mark.parametrize(
    "eat",
    [
        "pages = []\n            while True: pages.append(b'x' * 1_000_000)",
        "m = mmap.mmap(-1, 3 << 30); m.madvise(mmap.MADV_HUGEPAGE)\n            for i in range(0, 3 << 30, 4096): m[i] = 1",
        "buffer = bytearray(1); buffer = b'x' * (3 << 30)",
    ],
    ids=["small-pages", "huge-pages", "one-call"],
)
def test_a_stopped_test_is_stopped_near_its_budget_with_the_right_line(run: Callable[..., Run], eat: str) -> None:
    ran = run(
        f"""
        import mmap, pytest
        @pytest.mark.max_ram("100MB", on_breach="stop")
        def test_it():
            {eat}
        """
    )

    record = ran["test_it"]
    assert record.ending.kind == "over_budget"
    assert "in test_it" in record.stack[0]
    assert record.budgets[0].actual_bytes < 1000 * MB


@linux
def test_an_rlimit_makes_the_line_itself_raise(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest
        @pytest.mark.max_ram("200MB", enforce="rlimit")
        def test_it():
            pages = []
            with pytest.raises(MemoryError):
                while True: pages.append(b"x" * 1_000_000)
            pages.clear()
        """
    )

    ran.result.assert_outcomes(passed=1)


@linux
def test_one_allocation_beyond_an_rlimit_is_granted_far_from_it_and_stopped(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest
        @pytest.mark.max_ram("100MB", enforce="rlimit")
        def test_it(): b"x" * 2_000_000_000
        """
    )

    record = ran["test_it"]
    assert record.ending.kind == "over_budget"
    assert "in test_it" in record.stack[0]


@linux
@pytest.mark.parametrize("enforce", ["watch", "cgroup"])
def test_a_hard_limit_on_memory_is_none_on_the_disk_and_none_on_a_block(run: Callable[..., Run], enforce: str) -> None:
    ran = run(
        f"""
        import pytest, time
        from pathlib import Path
        pytestmark = pytest.mark.max_ram("500MB", enforce={enforce!r})
        @pytest.mark.max_disk("20MB", on_breach="finish")
        def test_disk(tmp_path):
            (tmp_path / "log").write_bytes(bytes(30_000_000))
            time.sleep(0.3)
            Path("disk").touch()
        def test_block(memory_budget):
            with memory_budget("20MB", name="block"):
                held = b"x" * 30_000_000
                time.sleep(0.3)
                Path("block").touch()
        """
    )

    ran.result.assert_outcomes(failed=2)
    assert Path("disk").exists()
    assert Path("block").exists()
    assert [budget.held for test in ran.record.tests for budget in test.budgets] == [True, False, True, False]


@linux
def test_a_control_group_is_exact_or_its_absence_is_said(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os, pytest
        @pytest.mark.max_ram("100MB", enforce="cgroup")
        def test_it():
            children = []
            for _ in range(4):
                if (pid := os.fork()) == 0:
                    pages = [b"x" * 1_000_000 for _ in range(60)]
                    os._exit(0)
                children.append(pid)
            hoard = [b"x" * 1_000_000 for _ in range(200)]
        """
    )

    record = ran["test_it"]
    assert record.ending.kind == "over_budget"
    assert not record.budgets[0].held
    said = any("watched instead" in note for note in record.notes)
    assert said or record.budgets[0].actual_bytes < 130 * MB


@linux
def test_the_reserve_stops_a_growing_test(run: Callable[..., Run]) -> None:
    import psutil

    reserve = psutil.virtual_memory().available - 300 * MB
    ran = run(
        """
        import pytest, time
        @pytest.mark.in_worker
        def test_it():
            pages = []
            while True:
                pages.append(b"x" * 1_000_000)
                time.sleep(0.001)
        @pytest.mark.in_worker
        def test_small(): pass
        """,
        f"--llm-reserve={reserve}B",
    )

    assert ran["test_it"].ending.kind == "over_budget"
    assert ran["test_it"].ending.note == "stopped before the machine ran out of memory"
    assert ran["test_small"].outcome == "passed"


@needs("a kept peak of memory")
def test_a_share_of_the_host_is_compared_with_absolute_memory(run: Callable[..., Run]) -> None:
    import psutil

    ran = run(
        """
        import pytest
        @pytest.mark.max_ram("SHARE% host")
        def test_over(): b"x" * 60_000_000
        @pytest.mark.max_ram("90% host")
        def test_held(): b"x" * 60_000_000
        """.replace("SHARE", f"{100 * 75e6 / psutil.virtual_memory().total:.6f}")
    )

    assert (ran["test_over"].outcome, ran["test_held"].outcome) == ("failed", "passed")


@linux
def test_forked_children_are_counted_once(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import mmap, os, pytest, time
        @pytest.mark.in_worker
        def test_it():
            mine = bytearray(b"x" * 100_000_000)
            for _ in range(4):
                if os.fork() == 0:
                    m = mmap.mmap(-1, 80_000_000)
                    for i in range(0, 80_000_000, 4096): m[i] = 1
                    time.sleep(0.6)
                    os._exit(0)
            for _ in range(4): os.wait()
        """
    )

    ram = ran["test_it"].ram
    assert ram is not None
    assert ram.method == "sampled"
    # a plain sum would find the 100 MB five times; what each child copies by running is its own, and more under coverage
    assert 415 * MB <= ram.peak_bytes <= 500 * MB


@linux
def test_what_the_parent_copies_is_not_a_childs(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        inherited = bytearray(b"x" * 100_000_000)

        def pytest_runtest_logstart(nodeid):
            if "test_child" in nodeid:
                for i in range(0, len(inherited), 4096): inherited[i] = 1
        """
    )

    ran = run(
        """
        import pytest, subprocess, sys
        pytestmark = pytest.mark.in_worker
        # long enough to be looked at many times, on a busy machine too
        CHILD = "import time; held = bytearray(50_000_000); time.sleep(1.5)"
        def test_first(): pass
        def test_child(): subprocess.run([sys.executable, "-c", CHILD], check=True)
        """
    )

    ram = ran["test_child"].ram
    assert ram is not None
    assert 50 * MB <= ram.peak_bytes <= 90 * MB


def test_a_breach_in_a_group_that_is_stopped_too_late_loses_nothing(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest
        pytestmark = pytest.mark.in_worker(scope="module")
        @pytest.mark.max_ram("10MB")
        def test_a(): block = bytearray(50_000_000)
        def test_b(): pass
        """
    )

    ran.result.assert_outcomes(failed=1, passed=1)


@linux
def test_the_peak_of_a_stopped_test_includes_what_it_grew_while_it_was_stopped(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest
        @pytest.mark.max_ram("100MB")
        def test_it(tmp_path_factory):
            pages = []
            with open("touched", "w", buffering=1) as file:
                while True:
                    pages.append(b"x" * 10_000_000)
                    file.seek(0)
                    file.write(f"{len(pages):6}")
        """
    )

    touched = int(Path("touched").read_text(encoding="utf-8")) * 10 * MB
    record = ran["test_it"]
    assert record.ram is not None
    assert record.ending.kind == "over_budget"
    assert record.ram.peak_bytes + MB >= touched
    assert record.ram.peak_bytes < 250 * MB


@needs("a kept peak of memory")
def test_a_call_that_ends_before_its_stop_arrives_fails_as_a_call(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest
        @pytest.fixture
        def slow_end():
            yield
            import time; time.sleep(1)
        @pytest.mark.xfail(strict=True)
        @pytest.mark.parametrize("n", range(5))
        @pytest.mark.max_ram("10MB", on_breach="stop")
        def test_it(n, slow_end): bytearray(50_000_000)
        """
    )

    ran.result.assert_outcomes(xfailed=5)
    assert {test.ending.kind for test in ran.record.tests} == {"over_budget"}


def test_the_stack_at_a_crossing_is_taken_without_harm_to_threads_that_come_and_go(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest, threading

        @pytest.mark.parametrize("number", range(6))
        @pytest.mark.max_ram("20MB")
        def test_it(number):
            held = []
            for _ in range(3000):
                threads = [threading.Thread(target=lambda: held.append(bytes(5_000))) for _ in range(2)]
                for thread in threads: thread.start()
                for thread in threads: thread.join()
        """
    )

    assert [test.ending.kind for test in ran.record.tests] == ["over_budget"] * 6
    assert all("test_it" in " ".join(test.stack) for test in ran.record.tests)


@linux
def test_a_child_that_is_still_in_its_parents_memory_is_not_counted_beside_it(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os, subprocess, pytest
        @pytest.mark.in_worker
        def test_it(tmp_path):
            held = bytearray(b"x") * 100_000_000
            fifo = str(tmp_path / "fifo")
            os.mkfifo(fifo)
            writer = subprocess.Popen(["sh", "-c", f"sleep 0.5; : > {fifo}"])
            # the child shares our memory until it is a program of its own, and waits before that
            child = os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 9, fifo, os.O_RDONLY, 0)])
            os.waitpid(child, 0)
            writer.wait()
        """
    )

    ran.result.assert_outcomes(passed=1)
    assert ran["test_it"].ram.method == "sampled"
    assert ran["test_it"].ram.peak_bytes == pytest.approx(102e6, rel=0.05)
