"""Training steps, measured and predicted.

pytest examples/training --llm-model=synthetic:tiny-llama?dtype=float32
"""

import pytest
import torch


@pytest.mark.llm_train(batch_size=2, seq_len=128)
@pytest.mark.max_ram("weights + gradients + optimizer + 1.1 * activations + 300MB")
def test_a_step_needs_what_it_promises(train_step):
    assert train_step.activations_bytes <= 1.05 * train_step.predict().activations_bytes


@pytest.mark.llm_train(batch_size=2, seq_len=128, checkpointing=True)
def test_checkpointing_keeps_one_input_for_each_layer(train_step):
    layers = [each for each in train_step.kept if ".layers." in each.module]
    assert sum(each.bytes for each in layers) < 0.5 * train_step.activations_bytes


@pytest.mark.llm_generate(batch_size=2, prompt=64, new_tokens=8)
@pytest.mark.max_ram("2 * kv_cache + 300MB")
def test_the_cache_is_what_its_arithmetic_says(generate_step):
    assert generate_step.kv_cache_bytes == generate_step.predict().kv_cache_bytes


def test_a_loop_of_my_own_does_not_grow(loaded_model, training_memory):
    model = loaded_model.model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    tokens = torch.ones(2, 64, dtype=torch.long)
    with training_memory(model, optimizer) as spent:
        for _ in range(3):
            model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert spent.peak_of_step(3) <= spent.peak_of_step(2)
