"""A test in ranks: workers that run it at once, find each other, and are ended when one of them fails."""

import os
from collections.abc import Callable

import pytest

from tests.conftest import Run, needs

pytestmark = needs("forked workers")

GROUPS = """
    import os, pytest, torch
    import torch.distributed as dist

    pytestmark = pytest.mark.in_worker(timeout=60)

    @pytest.mark.in_worker(ranks=2)
    @pytest.mark.parametrize("number", range(10))
    def test_two(rank, process_group, number):
        ones = torch.full((3,), float(rank + 1))
        dist.all_reduce(ones)
        assert ones.tolist() == [3.0] * 3

    @pytest.mark.in_worker(ranks=4)
    @pytest.mark.parametrize("number", range(10))
    def test_four(number):
        dist.init_process_group("gloo")  # by the environment, as under torchrun
        ranks = [None] * 4
        dist.all_gather_object(ranks, int(os.environ["LOCAL_RANK"]))
        assert ranks == [0, 1, 2, 3]
"""


@needs("torch")
def test_the_ranks_of_each_test_find_each_other_and_none_of_another_test(run: Callable[..., Run]) -> None:
    ran = run(GROUPS, timeout_s=200)

    ran.result.assert_outcomes(passed=20)
    assert [each.rank for each in ran["test_four[9]"].ranks] == [0, 1, 2, 3]


ENDINGS = """
    import ctypes, os, pathlib, signal, subprocess, sys, time
    import pytest

    pytestmark = pytest.mark.in_worker(ranks=4, timeout=20)

    def waits(rank, bad):
        print(f"rank {rank} was here")
        pathlib.Path(f"rank-{rank}").write_text(str(os.getpid()))
        if rank != bad:
            time.sleep(100)

    def test_raises(rank):
        waits(rank, 2)
        raise ValueError("of its own")

    def test_aborts(rank):
        waits(rank, 3)
        os.abort()

    def test_exits(rank):
        waits(rank, 0)
        os._exit(0)

    @pytest.fixture
    def broken(rank):
        waits(rank, 1)
        raise OSError("in setup")

    def test_setup(broken): pass

    @pytest.mark.in_worker(ranks=2, timeout=2)
    def test_waits_for_each_other(rank):
        def receives(): waits(rank, None)
        def computes(): waits(rank, None)
        receives() if rank == 0 else computes()

    @pytest.mark.xfail(raises=ValueError, strict=True)
    def test_expected(rank):
        waits(rank, 1)
        raise ValueError

    def test_all_raise_alike(rank):
        raise KeyError("alike")

    def test_only_rank_0_is_needed(rank):
        if rank:
            pytest.skip("for rank 0 alone")
        time.sleep(1.5)

    def test_passes(rank):
        assert os.environ["RANK"] == os.environ["LOCAL_RANK"] == str(rank) and os.environ["WORLD_SIZE"] == "4"
"""


def test_a_failure_names_its_rank_and_ends_the_others(run: Callable[..., Run]) -> None:
    ran = run(ENDINGS, "-vv", timeout_s=150)

    ran.result.assert_outcomes(passed=2, failed=5, errors=1, xfailed=1)
    ran.result.stdout.fnmatch_lines_random(
        [
            "*test_raises - rank 2: ValueError: of its own",
            "*test_aborts - WorkerCrashed: rank 3: crashed with SIGABRT in call *",
            "*test_exits - WorkerCrashed: rank 0: exited with code 0 in call *",
            "*test_setup - rank 1: OSError: in setup",
            "*test_waits_for_each_other - WorkerCrashed: rank 0: timed out in call *",
            "*test_all_raise_alike - KeyError: 'alike'",
        ]
    )
    raised, aborted = ran["test_raises"], ran["test_aborts"]
    assert [each.ending and each.ending.kind for each in raised.ranks] == ["ended", "ended", "raised", "ended"]
    assert (aborted.ending.rank, aborted.ending.signal, aborted.ending.phase) == (3, "SIGABRT", "call")
    assert aborted.duration_s < 10, "the others would have slept on"
    assert any("in waits" in frame for frame in aborted.ranks[0].stack)


def test_a_timeout_shows_what_every_rank_was_doing(run: Callable[..., Run]) -> None:
    ran = run(ENDINGS, "-k", "for_each_other")

    stacks = [" ".join(each.stack) for each in ran["test_waits_for_each_other"].ranks]
    assert "in receives" in stacks[0]
    assert "in computes" in stacks[1]
    ran.result.stdout.fnmatch_lines(
        ["rank 0 *", "*in waits", "*in receives", "*", "rank 1 *", "*in waits", "*in computes"]
    )


def test_output_is_that_of_the_rank_that_failed_and_no_process_is_left(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    ran = run(ENDINGS, "-k", "raises or aborts")

    shown = [line for line in ran.result.outlines if line.endswith("was here")]
    assert shown == ["rank 2 was here", "rank 3 was here"]
    for rank in range(4):
        assert not os.path.exists(f"/proc/{(pytester.path / f'rank-{rank}').read_text()}")


BAD = """
    import pytest

    @pytest.mark.in_worker(ranks=0)
    def test_none(): pass

    @pytest.mark.in_worker(ranks="two")
    def test_word(): pass

    @pytest.mark.in_worker(ranks=1000)
    def test_many(): pass

    @pytest.mark.in_worker(ranks=2, scope="session")
    def test_scope(): pass
"""


def test_a_number_of_ranks_that_cannot_be_is_refused_with_a_sentence(run: Callable[..., Run]) -> None:
    ran = run(BAD)

    ran.result.assert_outcomes(failed=4)
    ran.result.stdout.fnmatch_lines_random(
        [
            "in_worker: 0 is not a number of ranks: write 1 to 64",
            "in_worker: 'two' is not a number of ranks: write 1 to 64",
            "in_worker: 1000 is not a number of ranks: write 1 to 64",
            "in_worker: scope='session' and ranks=2: the workers of a test in ranks serve that test alone: leave scope out",
        ]
    )


IN_RANKS = "import pytest\n@pytest.mark.in_worker(ranks=2)\ndef test_it(rank): pass"


@needs("torch")
def test_a_test_that_only_wants_a_process_group_runs_in_the_ranks_of_the_option(run: Callable[..., Run]) -> None:
    ran = run("def test_it(process_group): assert process_group.size() == 2", "--llm-ranks=2", timeout_s=120)

    assert ran["test_it"].outcome == "passed"
    assert len(ran["test_it"].ranks) == 2
    assert ran["test_it"].notes == (), "torch was imported before the ranks were forked"


def test_a_session_that_is_a_rank_starts_no_ranks(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")

    run(IN_RANKS).result.stdout.fnmatch_lines(["in_worker(ranks=2): this session is a rank itself *without torchrun"])


def test_without_workers_a_test_in_ranks_is_skipped(run: Callable[..., Run]) -> None:
    ran = run(IN_RANKS, "--llm-isolate=none", "-rs")

    ran.result.assert_outcomes(skipped=1)
    ran.result.stdout.fnmatch_lines(["*it needs 2 workers, one for each rank, and tests run in this process here *"])
