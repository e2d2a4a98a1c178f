"""Tests as a team would write them for its own model: ``pytest examples --llm-model=SOURCE``.

Three tests fail on purpose and are marked as expected: they show a broken budget, a crash and a hard limit
(``pytest -rx`` prints the reasons).
"""

import ctypes

import pytest
import torch

from pytest_llmmem import BudgetExceeded, WorkerCrashed


def test_the_checkpoint_is_whole(model_checkpoint):
    assert not model_checkpoint.missing
    assert not model_checkpoint.truncated
    assert not model_checkpoint.duplicates


@pytest.mark.max_ram("0.1 * weights + 200MB")
def test_the_load_copies_nothing(loaded_model):
    assert str(loaded_model.dtype) == f"torch.{loaded_model.checkpoint.dtype}"


@pytest.mark.max_ram("weights + 400MB", count="resident")
def test_the_whole_model_fits_once(loaded_model, memory_budget):
    with memory_budget("100MB", name="touch"):
        loaded_model.touch()
    assert loaded_model.mapped_nbytes == 0


@pytest.mark.max_ram("0.1 * weights + 400MB")
def test_the_first_forward_needs_little(loaded_model, memory_budget):
    tokens = torch.arange(8).unsqueeze(0)
    with memory_budget("200MB", name="forward"), torch.inference_mode():
        loaded_model.model(tokens)


@pytest.mark.xfail(raises=BudgetExceeded, strict=True, reason="a second copy breaks the budget, on purpose")
@pytest.mark.max_ram("0.9 * weights")
def test_a_second_copy_is_seen(loaded_model):
    copy = {name: tensor.clone() for name, tensor in loaded_model.model.state_dict().items()}
    assert copy


@pytest.mark.xfail(raises=WorkerCrashed, strict=True, reason="a segmentation fault in native code, on purpose")
@pytest.mark.in_worker
def test_a_crash_is_one_failed_test(loaded_model):
    ctypes.string_at(0)


@pytest.mark.xfail(raises=BudgetExceeded, strict=True, reason="stopped at a hard limit, on purpose")
@pytest.mark.max_ram("300MB", on_breach="stop", enforce="cgroup")
def test_a_runaway_is_stopped(loaded_model):
    hoard = []
    while True:
        hoard.append(torch.ones(1_000_000))
