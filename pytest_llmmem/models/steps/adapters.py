"""Preparation of a model for training: its dtype, an adapter, checkpointing. It works with real and with fake tensors."""

import contextlib
import warnings
from typing import Any

import torch

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.core.printable import some_of
from pytest_llmmem.models.steps.spec import GenerateSpec, TrainSpec


class TooLongError(StepError):
    """A sequence that is longer than the model's positions."""


def prepare(model: Any, step: TrainSpec) -> Any:
    """Prepare the model for the step; an adapter wraps it. Raises ``StepError`` for unsupported settings."""
    if step.precision is not None:
        model = model.to(getattr(torch, step.precision))
    if step.lora is not None:
        model = _with_adapter(model, step)
    model.train()
    if step.checkpointing:
        _checkpoint(model, step)
    return model


def check_length(config: Any, step: TrainSpec | GenerateSpec) -> None:
    """Check the sequence length. Raises ``TooLongError``."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and step.seq_len > positions:
        what = "seq_len" if isinstance(step, TrainSpec) else "prompt + new_tokens"
        msg = (
            f"{what} is {step.seq_len:,}, and the model has {positions:,} positions (max_position_embeddings of its config): "
            f"write {positions:,} or less"
        )
        raise TooLongError(msg)


def checkpoint_activations(model: Any, **arguments: Any) -> None:
    """Enable checkpointing under the installed transformers' name for it. Raises ``StepError`` where it is not supported."""
    new, old = "activation_checkpointing_enable", "gradient_checkpointing_enable"
    try:
        getattr(model, new if hasattr(model, new) else old)(arguments)
    except (ValueError, AttributeError) as error:
        msg = f"checkpointing: {type(model).__name__} cannot be checkpointed ({error}): leave it out"
        raise StepError(msg) from None


def _checkpoint(model: Any, step: TrainSpec) -> None:
    reentrant = step.checkpointing == "reentrant"
    base = model.get_base_model() if step.lora is not None else model
    checkpoint_activations(base, use_reentrant=reentrant)
    if step.lora is not None and reentrant:
        base.enable_input_require_grads()  # otherwise no input of a block needs a gradient, and none is computed


def _with_adapter(model: Any, step: TrainSpec) -> Any:
    try:
        import peft
    except ImportError:
        raise StepError("lora: it needs peft: pip install peft, or leave it out") from None
    targets = list(step.lora_targets) or "all-linear"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice of peft about a model's own settings
        config = peft.LoraConfig(r=step.lora, target_modules=targets)
        try:
            return peft.get_peft_model(model, config)
        except ValueError:
            names = {
                name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
            }
            msg = (
                f"lora: {type(model).__name__} has no module {' or '.join(map(repr, step.lora_targets)) or 'to adapt'}: "
                f"name some of {some_of(sorted(names))}"
            )
            raise StepError(msg) from None


@contextlib.contextmanager
def quietly() -> Any:
    """Suppress the advice that libraries log about settings made here."""
    import transformers

    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(before)
