"""Text generation, on real tensors and on fake ones."""

import contextlib
from typing import Any

import torch

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.models.steps.batches import random_tokens
from pytest_llmmem.models.steps.spec import GenerateSpec


class _LongEnough(Exception):  # noqa: N818 -- it ends a loop
    """Raised when all tokens are generated."""


def run_generation(model: Any, step: GenerateSpec, *, device: str) -> None:
    """Generate greedily until all tokens exist. End tokens are ignored, so that every run has the same length.

    Raises ``StepError`` for a model that cannot generate.
    """
    from transformers import StoppingCriteriaList

    if not getattr(model, "can_generate", bool)():
        msg = f"{type(model).__name__} generates no text: name a class with a language-model head in 'architectures'"
        raise StepError(msg)
    tokens = random_tokens(model, step.batch_size, step.prompt, device=device)

    # on fake tensors no sequence ever ends, so an exception ends the loop in both cases
    def stop(ids: torch.Tensor, _scores: Any, **_arguments: Any) -> Any:
        if ids.shape[1] >= step.seq_len:
            raise _LongEnough
        return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)

    with torch.no_grad(), contextlib.suppress(_LongEnough):
        model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=step.new_tokens + 1,
            min_new_tokens=step.new_tokens + 1,
            do_sample=False,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([stop]),
        )
