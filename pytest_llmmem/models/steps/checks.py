"""Checks of a model's training and generation, on fake tensors: no weights and no GPU are needed.

Each check takes a laboratory and returns the problem in one sentence, or ``None``. ``docs/checks.md`` gives the source of
each number.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.core.printable import some_of
from pytest_llmmem.core.sizes import format_beside, format_size
from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.models.steps.caching_allocator import BLOCK_BYTES
from pytest_llmmem.models.steps.kv_cache import cache_bytes
from pytest_llmmem.models.steps.laboratory import Laboratory
from pytest_llmmem.models.steps.optimizers import promised_bytes_per_element, promised_copies
from pytest_llmmem.models.steps.prediction import predict
from pytest_llmmem.models.steps.spec import TrainSpec

Check = Callable[[Laboratory], str | None]

_LENGTH: Final = 128
_LORA_RANK: Final = 8
_CHECKPOINTED: Final = 0.5
"""Largest share of the activations that checkpointing may keep: one input remains per layer, of a dozen tensors."""

_STATE: Final = 0.02
"""Largest relative deviation of the optimizer's state from its expected size: step counts, and rounding to blocks."""

_COPY: Final = 0.5
"""Temporary tensors beside whole copies, relative to the trained weights: the largest weight of a small model."""

_LOGITS: Final = 1.05
"""Largest size of the kept logits, relative to their size in float32."""


class NotApplicableError(Exception):
    """The check does not apply to this model; the text gives the reason."""


def checkpointing_takes_effect(laboratory: Laboratory) -> str | None:
    """Checkpointing at least halves the tensors kept for the backward pass, with an adapter too."""
    for lora in _adapters():
        step = _step(laboratory, lora=lora, steps=1)
        with _applying():
            plain = laboratory.trained(step).activations_bytes
            saving = laboratory.trained(dataclasses.replace(step, checkpointing=True)).activations_bytes
        if saving > _CHECKPOINTED * plain:
            of, kept, _ = format_beside(plain, saving)
            adapter = " with a LoRA adapter" if lora else ""
            return (
                f"checkpointing{adapter} keeps {kept} of {of}: is the model in eval() mode, did the adapter lose the layers' "
                "flags, or does the model ignore it?"
            )
    return None


def accumulation_costs_one_batch(laboratory: Laboratory) -> str | None:
    """Beside the gradients, four accumulated batches of one sequence need no more memory than one of them."""
    one = laboratory.trained(_step(laboratory, steps=1))
    four = laboratory.trained(_step(laboratory, steps=1, accumulation=4))
    if four.activations_bytes > one.activations_bytes:
        batch, kept, _ = format_beside(one.activations_bytes, four.activations_bytes)
        return f"accumulating 4 batches keeps {kept} of activations, one batch {batch}: call backward() for each batch"
    apart = _left(four) - _left(one)
    if apart >= one.gradients_bytes:
        return (
            f"accumulating 4 batches holds {format_size(apart)} beside gradients of {format_size(one.gradients_bytes)}: "
            "they are there twice: let backward() add to .grad"
        )
    return None


def optimizer_state(laboratory: Laboratory) -> str | None:
    """The optimizer keeps the state that its name promises, and its step makes no more temporary copies than that."""
    step = _step(laboratory)
    memory = laboratory.trained(step)
    promised = promised_bytes_per_element(step.optimizer, memory.trainable_bytes // max(1, memory.trainable_parameters))
    if promised is None:
        msg = f"what {step.optimizer} keeps depends on each weight's shape"
        raise NotApplicableError(msg)
    expected = round(promised * memory.trainable_parameters)
    rounding = 3 * BLOCK_BYTES * len(laboratory.trained_names(step))  # two moments, and a step count
    if abs(memory.optimizer_bytes - expected) > _STATE * expected + rounding:
        wanted, kept, _ = format_beside(expected, memory.optimizer_bytes)
        each = memory.optimizer_bytes / max(1, memory.trainable_parameters)
        return (
            f"{step.optimizer} keeps {kept}, {each:.1f} bytes for each trained weight, and its name promises {wanted}: "
            "is its state wider than the weights, or are there more moments?"
        )
    return _too_many_temporaries(step.optimizer, memory)


def _too_many_temporaries(optimizer: str, memory: StepMemory) -> str | None:
    peak = max((each for each in memory.phases if each.phase == "optimizer"), key=lambda each: each.step)
    made = peak.by_kind.get("temporary", 0)
    copies, promised = made / max(1, memory.trainable_bytes), promised_copies(optimizer)
    if copies <= promised + _COPY:
        return None
    return (
        f"a step of {optimizer} makes {format_size(made)} of temporary tensors at once ({peak.op}), {copies:.1f} times the "
        f"trained weights, and its name promises {promised}: pass fused=True, or foreach=False"
    )


def only_adapter_trains(laboratory: Laboratory) -> str | None:
    """Only the adapter's weights have gradients and optimizer state."""
    if len(_adapters()) == 1:
        raise NotApplicableError("peft is not installed")
    step = _step(laboratory, lora=_LORA_RANK)
    with _applying():
        names = laboratory.trained_names(step)
    others = [name for name in names if "lora_" not in name]
    if others:
        return f"{len(others)} weights beside the adapter are trained, {some_of(others)}: freeze the base model"
    memory = laboratory.trained(step)
    if memory.gradients_bytes > memory.trainable_bytes + BLOCK_BYTES * len(names):
        trained, held, _ = format_beside(memory.trainable_bytes, memory.gradients_bytes)
        return f"gradients take {held}, and the adapter's weights {trained}: a frozen weight has one"
    return None


def no_growth_after_step_2(laboratory: Laboratory) -> str | None:
    """Step 4 peaks no higher than step 2."""
    memory = laboratory.trained(_step(laboratory, steps=4))
    second, fourth = memory.peak_of_step(2), memory.peak_of_step(4)
    if fourth > second:
        was, grown, apart = format_beside(second, fourth)
        return f"step 4 peaks at {grown}, step 2 at {was}: {apart} more: a loop keeps outputs, losses or graphs alive"
    return None


def eval_frees(laboratory: Laboratory) -> str | None:
    """An evaluation of six batches needs no more memory than one of two."""
    two = laboratory.evaluated(_step(laboratory, steps=2)).peak_bytes
    six = laboratory.evaluated(_step(laboratory, steps=6)).peak_bytes
    if six > two:
        was, grown, _ = format_beside(two, six)
        return (
            f"evaluating 6 batches peaks at {grown}, 2 batches at {was}: it keeps logits or graphs: move what is gathered to "
            "the host, or reduce it, and evaluate under torch.no_grad()"
        )
    return None


def logits(laboratory: Laboratory) -> str | None:
    """Logits (vocabulary by length) are kept for the backward pass once, in float32."""
    step, small, large = _step(laboratory, steps=1), 1024, 2048
    apart = (
        laboratory.trained(step, vocabulary=large).activations_bytes
        - laboratory.trained(step, vocabulary=small).activations_bytes
    )
    times = apart / (4 * step.batch_size * step.seq_len * (large - small))
    if times > _LOGITS:
        return (
            f"logits are kept {times:.1f} times in float32 for the backward pass, once is enough: is a copy cast to float32 "
            "beside the original, or are the outputs kept alive until the backward pass?"
        )
    return None


def kv_cache(laboratory: Laboratory) -> str | None:
    """The cache of keys and values has its calculated size."""
    request, step = laboratory.small(), laboratory.generation
    with _applying():
        found = predict(dataclasses.replace(request, step=step, device="cpu")).kv_cache_bytes
        expected = cache_bytes(request.config, step, dtype=request.dtype)
    if found != expected:
        wanted, kept, _ = format_beside(expected, found)
        kind = step.cache_implementation or "dynamic"
        return (
            f"keys and values take {kept}, and 2 * layers * batch * kv_heads * head_dim * length * bytes of a {kind} cache is "
            f"{wanted}: are they in a wider dtype, or there for every query head?"
        )
    return None


CHECKS: Final[Mapping[str, Check]] = {
    "checkpointing_takes_effect": checkpointing_takes_effect,
    "accumulation_costs_one_batch": accumulation_costs_one_batch,
    "optimizer_state": optimizer_state,
    "only_adapter_trains": only_adapter_trains,
    "no_growth_after_step_2": no_growth_after_step_2,
    "eval_frees": eval_frees,
    "logits": logits,
    "kv_cache": kv_cache,
}
"""Checks by id."""


def _step(laboratory: Laboratory, **changes: Any) -> TrainSpec:
    positions = laboratory.request.config.get("max_position_embeddings")
    longest = positions if isinstance(positions, int) else _LENGTH
    return TrainSpec(**{"seq_len": min(_LENGTH, longest), "steps": 2} | changes)


def _adapters() -> tuple[int | None, ...]:
    from importlib.util import find_spec

    return (None, _LORA_RANK) if find_spec("peft") else (None,)


def _left(memory: Any) -> int:
    """Bytes of neither weights nor gradients after the last backward pass."""
    backward = max((each for each in memory.phases if each.phase == "backward"), key=lambda each: each.step)
    return sum(
        size for kind, size in backward.end_by_kind.items() if kind not in {"parameters", "gradients", "optimizer"}
    )


@contextlib.contextmanager
def _applying() -> Iterator[None]:
    """Convert a model's refusal: the check does not apply, and has found no error."""
    try:
        yield
    except StepError as error:
        raise NotApplicableError(str(error)) from None
