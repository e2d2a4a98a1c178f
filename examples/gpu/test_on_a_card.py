"""Loads on a GPU: ``pytest examples/gpu --llm-model=SOURCE --llm-device=cuda:0 --llm-require-gpu``. Without the last option,
and without a GPU, they are skipped.

The last two fail on purpose and are marked as expected: they show a broken budget, and an allocation that a cap refuses.
"""

import pytest
import torch

from pytest_llmmem import BudgetExceeded


@pytest.mark.llm_load("float16")
@pytest.mark.max_vram("weights + 500MB", device="cuda:0")
@pytest.mark.max_ram("2GB")
def test_goes_straight_to_the_card(loaded_model):
    assert loaded_model.nbytes_on("cuda:0") == loaded_model.nbytes


@pytest.mark.llm_load("float16")
@pytest.mark.max_vram("80% device", device="cuda:0")
def test_leaves_room_for_others(loaded_model):
    tokens = torch.arange(8, device="cuda:0").unsqueeze(0)
    with torch.inference_mode():
        loaded_model.model(tokens)


@pytest.mark.llm_load("float16")
@pytest.mark.max_vram("1.1 * weights + 500MB", device="cuda:0", count="allocated")
def test_the_first_forward_keeps_little(loaded_model):
    tokens = torch.arange(8, device="cuda:0").unsqueeze(0)
    with torch.inference_mode():
        loaded_model.model(tokens)


@pytest.mark.max_vram("weights + 1.5GB", device="cuda:0", count="device")
@pytest.mark.llm_load("float16")
def test_with_the_driver_s_context(loaded_model):
    assert loaded_model.nbytes_on("cuda:0") == loaded_model.nbytes


@pytest.mark.xfail(raises=BudgetExceeded, strict=True, reason="a second copy breaks the budget, on purpose")
@pytest.mark.llm_load("float16")
@pytest.mark.max_vram("1.5 * weights", device="cuda:0")
def test_a_second_copy_is_seen(loaded_model):
    copy = {name: tensor.clone() for name, tensor in loaded_model.model.state_dict().items()}
    assert copy


@pytest.mark.xfail(raises=torch.OutOfMemoryError, strict=True, reason="the allocator refuses it, on purpose")
@pytest.mark.max_vram("500MB", device="cuda:0", enforce="cap")
def test_a_runaway_is_refused():
    hoard = []
    while True:
        hoard.append(torch.ones(10_000_000, device="cuda:0"))
