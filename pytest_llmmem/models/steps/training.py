"""The loop of a training step, on real tensors and on fake ones."""

import contextlib
import inspect
from typing import Any

import torch

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.models.steps.batches import base_of, random_batch
from pytest_llmmem.models.steps.spec import TrainSpec


def run_training(model: Any, optimizer: torch.optim.Optimizer, step: TrainSpec, *, device: str) -> None:
    """Run forward, backward and optimizer ``step.steps`` times. Raises ``StepError`` for a model without a loss."""
    for _ in range(step.steps):
        run_passes(model, step, device=device)
        optimizer.step()
        optimizer.zero_grad()


def run_passes(model: Any, step: TrainSpec, *, device: str) -> None:
    """Run the forward and backward passes of one step. Raises ``StepError`` for a model without a loss."""
    arguments = extra_arguments(model)
    for _ in range(step.accumulation):
        loss = _loss(model, step, arguments, device)
        (loss / step.accumulation).backward()
        del loss


def extra_arguments(model: Any) -> dict[str, Any]:
    """Further arguments of a trainer: no cache of keys and values, where the model could make one."""
    takes_cache = "use_cache" in inspect.signature(base_of(model).forward).parameters
    return {"use_cache": False} if takes_cache else {}


def _loss(model: Any, step: TrainSpec, arguments: dict[str, Any], device: str) -> torch.Tensor:
    batch = random_batch(model, step, device=device)
    cast = contextlib.nullcontext()
    if step.autocast is not None:
        cast = torch.autocast(torch.device(device).type, dtype=getattr(torch, step.autocast))
    with cast:
        result = model(**batch, **arguments)
    loss = getattr(result, "loss", None)
    if not isinstance(loss, torch.Tensor):
        msg = (
            f"{type(base_of(model)).__name__} gives no loss for input_ids and labels: name a class with a language-model head in "
            "'architectures' of its config"
        )
        raise StepError(msg)
    return loss
