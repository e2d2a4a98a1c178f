"""Two ways to do the same, compared by what they need: no marker, no budget.

Each way runs in a process of its own, so neither sees what the other has left.
"""

import torch
from torch.utils.checkpoint import checkpoint_sequential

from pytest_llmmem import measure


def step(*, checkpointing):
    layers = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(16)))
    batch = torch.ones(8192, 256)
    output = checkpoint_sequential(layers, 4, batch, use_reentrant=False) if checkpointing else layers(batch)
    output.sum().backward()
    return output.sum().item()


def test_checkpointing_saves_memory():
    # the first call of either way imports a part of torch: 100 MB that are not the step's
    plain, saving = (measure(step, checkpointing=way, warmup=1).check() for way in (False, True))

    assert saving.peak_bytes < 0.8 * plain.peak_bytes


def test_each_further_step_leaves_nothing(memory_growth):
    growth = memory_growth(lambda: step(checkpointing=False), repeat=5)

    assert growth.per_call_bytes <= growth.error_bytes + 100_000
