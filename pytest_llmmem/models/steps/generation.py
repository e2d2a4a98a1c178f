"""Text generation, on real tensors and on fake ones."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.models.steps.batches import random_tokens
from pytest_llmmem.models.steps.spec import GenerateSpec
from pytest_llmmem.models.steps.torch_internals import forget_static_cache


class _LongEnough(Exception):  # noqa: N818 -- it ends a loop
    """Raised when all tokens are generated."""


def run_generation(model: Any, step: GenerateSpec, *, device: str) -> None:
    """Generate greedily until all tokens exist. End tokens are ignored, so that every run has the same length.

    Raises ``StepError`` for a model that cannot generate, or not with that cache.
    """
    from transformers import StoppingCriteriaList

    if not getattr(model, "can_generate", bool)():
        msg = f"{type(model).__name__} generates no text: name a class with a language-model head in 'architectures'"
        raise StepError(msg)
    cache = _cache_arguments(step)
    forget_static_cache(model)
    tokens, made = random_tokens(model, step.batch_size, step.prompt, device=device), itertools.count(1)

    # on fake tensors no sequence ever ends, so an exception ends the loop in both cases
    def stop(ids: torch.Tensor, _scores: Any, **_arguments: Any) -> Any:
        if next(made) == step.new_tokens:
            raise _LongEnough
        return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)

    with torch.no_grad(), contextlib.suppress(_LongEnough), _refusing(cache):
        model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=step.new_tokens,
            min_new_tokens=step.new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([stop]),
            **cache,
        )


def _cache_arguments(step: GenerateSpec) -> dict[str, Any]:
    """The cache's arguments of ``generate``; those that the step leaves open come from the model."""
    if str(step.cache_implementation).startswith("offloaded") and not torch.accelerator.is_available():
        msg = f"cache_implementation={step.cache_implementation!r} needs a GPU to be offloaded from: measure it there"
        raise StepError(msg)
    given = {name: getattr(step, name) for name in ("cache_implementation", "cache_config", "max_cache_len")}
    return {name: value for name, value in given.items() if value is not None}


@contextlib.contextmanager
def _refusing(cache: dict[str, Any]) -> Iterator[None]:
    """Convert what transformers says of a cache that it cannot make: a missing package, or an unsupported model."""
    try:
        yield
    except (ImportError, ValueError) as error:
        if not cache:
            raise
        settings = ", ".join(f"{name}={value!r}" for name, value in cache.items())
        msg = f"{settings}: transformers makes no such cache for this model ({' '.join(str(error).split())})"
        raise StepError(msg) from None
