"""Steps in ranks: each rank holds its part of every kind, and the layers that it gathers are temporary."""

from collections.abc import Callable

import pytest

from tests.conftest import Run, needs

pytestmark = [
    needs("forked workers"),
    needs("torch", "transformers", "accelerate"),
]

STEPS = """
    import pytest

    @pytest.mark.in_worker(timeout=100)
    @pytest.mark.llm_train(batch_size=1, seq_len=16, optimizer="adamw")
    def test_step(train_step): pass
"""


def test_a_training_step_over_ranks_holds_a_part_of_every_kind_in_each(run: Callable[..., Run]) -> None:
    loads = ("--llm-load=fsdp", "--llm-load=tensor_parallel")
    ran = run(STEPS, "--llm-model=synthetic:tiny-llama", *loads, "--llm-ranks=2", timeout_s=200)

    ran.result.assert_outcomes(passed=2)
    fsdp = ran["test_step[tiny-llama-fsdp]"]
    assert fsdp.model is not None
    whole = fsdp.model.weights_bytes
    for rank, other in zip(fsdp.ranks, ran["test_step[tiny-llama-tensor_parallel]"].ranks, strict=True):
        (step,), (parallel,) = rank.steps, other.steps
        assert step.parameters_bytes == pytest.approx(whole / 2, rel=0.02)
        assert step.gradients_bytes == pytest.approx(whole / 2, rel=0.02)
        assert step.optimizer_bytes == pytest.approx(whole, rel=0.02)
        forward, gathers_nothing = (each.phases[0].by_kind for each in (step, parallel))
        assert forward["temporary"] > whole / 3, "the layers that it gathers"
        assert gathers_nothing["temporary"] < whole / 5, "sums that are under way"
        assert forward["activations"] < 2 * gathers_nothing["activations"], "which gathered layers are not"
        assert parallel.parameters_bytes < 0.6 * whole
