"""Budgets of a test in ranks: of each rank by itself, or of all together; and what the report says of the ranks."""

from collections.abc import Callable

import pytest

from tests.conftest import Run, needs

pytestmark = needs("forked workers")

MB = 10**6

BUDGETS = """
    import time, pytest

    pytestmark = pytest.mark.in_worker(ranks=2, timeout=60)

    def fill(megabytes):
        block = b"x" * (megabytes * 1_000_000)
        time.sleep(0.5)
        return block

    @pytest.mark.max_ram("60MB", per="rank")
    def test_each_fits(rank):
        fill(40)

    @pytest.mark.max_ram("60MB", per="rank")
    def test_one_is_over(rank):
        fill(90 if rank else 40)

    @pytest.mark.max_ram("ranks * 30MB")
    def test_together_over(rank):
        fill(40)

    @pytest.mark.max_ram("60MB", per="rank", on_breach="stop")
    def test_one_is_stopped(rank):
        blocks = []
        while True:
            blocks += [b"x" * 1_000_000] if rank else []
            time.sleep(0.005)

    @pytest.mark.max_ram("ranks * 30MB", on_breach="stop")
    def test_together_stopped(rank):
        blocks = []
        while True:
            blocks.append(b"x" * 1_000_000)
            time.sleep(0.005)

    @pytest.mark.max_ram("1000GB", per="rank")
    def test_more_than_there_is(): pass

    @pytest.mark.max_ram("60MB", enforce="rlimit")
    def test_no_kernel_limits_a_sum(): pass

    @pytest.mark.max_ram("60MB", per="node")
    def test_unknown(): pass
"""


def test_a_budget_is_of_each_rank_or_of_all_together(run: Callable[..., Run]) -> None:
    ran = run(BUDGETS, "-vv", timeout_s=120)

    ran.result.assert_outcomes(passed=1, failed=7)
    ran.result.stdout.fnmatch_lines_random(
        [
            "*test_one_is_over - BudgetExceeded: max_ram is 60* MB, used * MB unreclaimable in rank 1: * MB over",
            "*test_together_over - BudgetExceeded: max_ram is 60* MB (ranks * 30MB), used * MB unreclaimable: * MB over",
            "*test_one_is_stopped - BudgetExceeded: max_ram is *, used * in rank 1: * over; stopped in call after *",
            "*test_together_stopped - BudgetExceeded: max_ram is * (ranks * 30MB), used *: * over; stopped in call after *",
            "max_ram: 2 ranks of 1*TB may need 2*TB, and there are *: lower the limit or the ranks",
            "max_ram: enforce='rlimit' limits one process, and 2 ranks share this limit: *",
            "max_ram: per='node' is not one of 'rank'",
        ]
    )
    fits, together = ran["test_each_fits"], ran["test_together_over"]
    assert [(verdict.rank, verdict.held) for verdict in fits.budgets] == [(0, True), (1, True)]
    assert all(40 * MB < verdict.actual_bytes < 60 * MB for verdict in fits.budgets)
    assert together.ram is not None
    assert together.ram.peak_bytes > 80 * MB, "of both ranks, each of which holds 40 MB"
    assert [each.ending and each.ending.kind for each in ran["test_one_is_stopped"].ranks] == ["ended", "over_budget"]


def test_the_report_has_each_rank_by_itself(run: Callable[..., Run]) -> None:
    ran = run(BUDGETS, "-k", "one_is_over")

    test = ran["test_one_is_over"]
    first, second = test.ranks
    assert second.peak_bytes - first.peak_bytes == pytest.approx(50 * MB, abs=5 * MB)
    assert first.baseline_bytes > 10 * MB
    assert second.timeline is not None
    assert max(second.timeline.unreclaimable_bytes) > 90 * MB
    assert test.timeline is not None
    assert max(test.timeline.unreclaimable_bytes) > 120 * MB, "the test's own course is the sum"


COPIES = """
    import pathlib, time, pytest

    NUMBERS = [float(number) for number in range(1_500_000)]  # 48 MB that each worker inherits

    @pytest.mark.in_worker(ranks=2, timeout=60)
    @pytest.mark.max_ram("60MB")
    def test_copies(rank):
        for number in NUMBERS:  # counting its references writes to its page
            pass
        pathlib.Path(f"copied-{rank}").touch()
        while len(list(pathlib.Path().glob("copied-*"))) < 2:
            time.sleep(0.01)
        time.sleep(0.5)
"""


def test_inherited_pages_that_the_ranks_copy_count_in_the_sum(run: Callable[..., Run]) -> None:
    ran = run(COPIES)

    ran.result.assert_outcomes(failed=1)
    (verdict,) = ran["test_copies"].budgets
    assert verdict.certain_bytes > 70 * MB, "two ranks copied 36 MB or more"


LOADS = """
    import pytest

    pytestmark = pytest.mark.in_worker(timeout=60)

    @pytest.mark.max_ram("share + 100MB", per="rank")
    def test_load(loaded_model):
        import torch

        with torch.inference_mode():
            loaded_model.model(torch.ones(1, 8, dtype=torch.long))
        weights = loaded_model.checkpoint.weights_bytes
        assert 0.5 * weights <= loaded_model.nbytes < 0.6 * weights
        assert loaded_model.bits_per_parameter == 16
        print(loaded_model.call)

    def test_plain(model_checkpoint): pass
"""


@needs("torch", "transformers", "accelerate")
def test_a_load_over_ranks_holds_its_share_in_each(run: Callable[..., Run]) -> None:
    loads = ("--llm-load=tensor_parallel", "--llm-load=fsdp")
    ran = run(LOADS, "--llm-model=synthetic:tiny-llama", *loads, "--llm-ranks=2", "-rP", timeout_s=120)

    ran.result.assert_outcomes(passed=3)
    ran.result.stdout.fnmatch_lines_random(
        [
            "LlamaForCausalLM.from_pretrained(*, distributed_config=DistributedConfig(tp_size=2, tp_plan='auto'))",
            "LlamaForCausalLM.from_pretrained(*, distributed_config=DistributedConfig(fsdp_size=2))",
        ]
    )
    test = ran["test_load[tiny-llama-tensor_parallel]"]
    assert test.model is not None
    assert [verdict.limit_bytes for verdict in test.budgets] == [-(-test.model.weights_bytes // 2) + 100 * MB] * 2
    held = [each.held_bytes or 0 for each in test.ranks]
    assert sum(held) == pytest.approx(test.model.weights_bytes, rel=0.1)
    assert ran["test_plain[tiny-llama]"].ranks == (), "which needs no ranks"


@needs("torch", "transformers", "accelerate")
def test_a_load_that_needs_ranks_says_how_to_get_them(run: Callable[..., Run]) -> None:
    ran = run(LOADS, "--llm-model=synthetic:tiny-llama", "--llm-load=fsdp", "-k", "test_load", "-rs")

    ran.result.assert_outcomes(skipped=1)
    ran.result.stdout.fnmatch_lines(["*needs several processes: pass --llm-ranks=2, or mark the test *(ranks=2)*"])
