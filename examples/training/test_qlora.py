"""A fine-tuning recipe, locked down on a runner without a GPU: no weights are fetched, and none are made.

pytest examples/training/test_qlora.py --llm-model=synthetic:llama-3.1-8b
"""

import pytest

GB = 10**9


@pytest.mark.llm_load("nf4")
@pytest.mark.llm_train(batch_size=1, seq_len=2048, optimizer="adamw8bit", lora=16, checkpointing=True)
def test_the_recipe_fits_a_24_gb_card(predicted_step):
    assert predicted_step.peak_bytes < 22 * GB  # the context and fragments take the rest
    assert predicted_step.optimizer_bytes < 0.1 * GB
    assert predicted_step.activations_bytes < 2 * GB
