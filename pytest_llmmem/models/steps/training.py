"""The loop of a training step, on real tensors and on fake ones."""

import contextlib
import inspect
from typing import Any

import torch

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.models.steps.spec import TrainSpec


def run_training(model: Any, optimizer: torch.optim.Optimizer, step: TrainSpec, *, device: str) -> None:
    """Run forward, backward and optimizer ``step.steps`` times. Raises ``StepError`` for a model without a loss."""
    arguments = extra_arguments(model)
    for _ in range(step.steps):
        for _ in range(step.accumulation):
            loss = _loss(model, step, arguments, device)
            (loss / step.accumulation).backward()
            del loss
        optimizer.step()
        optimizer.zero_grad()


def extra_arguments(model: Any) -> dict[str, Any]:
    """Further arguments of a trainer: no cache of keys and values, where the model could make one."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    takes_cache = "use_cache" in inspect.signature(base.forward).parameters
    return {"use_cache": False} if takes_cache else {}


def random_tokens(model: Any, batch_size: int, seq_len: int, *, device: str) -> torch.Tensor:
    """Random tokens of the model's vocabulary."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    vocabulary = base.config.get_text_config().vocab_size
    return torch.randint(0, vocabulary, (batch_size, seq_len), device=device)


def _loss(model: Any, step: TrainSpec, arguments: dict[str, Any], device: str) -> torch.Tensor:
    tokens = random_tokens(model, step.batch_size, step.seq_len, device=device)
    cast = contextlib.nullcontext()
    if step.autocast is not None:
        cast = torch.autocast(torch.device(device).type, dtype=getattr(torch, step.autocast))
    with cast:
        result = model(input_ids=tokens, labels=tokens, **arguments)
    loss = getattr(result, "loss", None)
    if not isinstance(loss, torch.Tensor):
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        msg = (
            f"{type(base).__name__} gives no loss for input_ids and labels: name a class with a language-model head in "
            "'architectures' of its config"
        )
        raise StepError(msg)
    return loss
