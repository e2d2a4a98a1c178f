"""The steps of a test: the values of its markers, and predicted limits in terms of a step."""

import dataclasses
from typing import Final, Literal, cast

import pytest

from pytest_llmmem.core.errors import MarkerError, StepError
from pytest_llmmem.core.limits import Limit
from pytest_llmmem.core.terms import Terms, train_terms_of
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.model_config import read_config, read_generation_config
from pytest_llmmem.models.estimates.estimate import estimate
from pytest_llmmem.models.sources.config_source import plain_config
from pytest_llmmem.models.steps.predictor import predict_apart
from pytest_llmmem.models.steps.spec import FLOATS, PREDICTED_LOADS, GenerateSpec, PredictRequest, TrainSpec
from pytest_llmmem.plugin.collect.loads import Load, load_of
from pytest_llmmem.plugin.state import find_checkpoint
from pytest_llmmem.plugin.step_markers import LlmGenerate, LlmTrain

_RUNS: Final = {
    "llm_train": ("train_step", "predicted_step", "training_memory"),
    "llm_generate": ("generate_step", "predicted_step"),
}
"""Fixtures of which one at least does what a marker says."""


def runs_steps(item: pytest.Item) -> bool:
    """Whether a test measures steps."""
    names = getattr(item, "fixturenames", ())
    return any(fixture in names for fixtures in _RUNS.values() for fixture in fixtures)


def check_steps(item: pytest.Item) -> None:
    """Raises ``MarkerError`` for a marker that cannot be used, or that describes a step which the test does not run."""
    names = getattr(item, "fixturenames", ())
    for marker in (LlmTrain, LlmGenerate):
        if marker.of(item) is not None and not any(fixture in names for fixture in _RUNS[marker.name]):
            msg = (
                f"{marker.name}: this test runs no such step: let it use the fixture {' or '.join(_RUNS[marker.name])}"
            )
            raise MarkerError(msg)


def with_step_terms(terms: Terms, item: pytest.Item, limit: Limit, *, device: Literal["cpu", "cuda"]) -> Terms:
    """The same terms, and those of the test's steps that a limit names: predicted, which may take seconds."""
    checkpoint = find_checkpoint(item)
    if not limit.step_terms or checkpoint is None:
        return terms
    steps: dict[str, int] = {}
    try:
        if (marker := LlmTrain.of(item)) is not None:
            memory = predict_apart(request_of(checkpoint, load_of(item), marker.step, device=device)).memory
            steps |= train_terms_of(
                trainable=memory.trainable_parameters,
                trainable_bytes=memory.trainable_bytes,
                gradients=memory.gradients_bytes,
                optimizer=memory.optimizer_bytes,
                activations=memory.activations_bytes,
            )
        if (generating := LlmGenerate.of(item)) is not None:
            memory = predict_apart(request_of(checkpoint, load_of(item), generating.step, device=device)).memory
            steps["kv_cache"] = memory.kv_cache_bytes
    except StepError as error:
        return dataclasses.replace(terms, why_no_steps=f" that cannot be predicted: {error}")
    return dataclasses.replace(terms, steps=steps)


def request_of(
    checkpoint: Checkpoint, load: Load, step: TrainSpec | GenerateSpec, *, device: Literal["cpu", "cuda"]
) -> PredictRequest:
    """The prediction of a step of a checkpoint that is loaded so. Raises ``StepError`` for a load after which there is none."""
    if load.strategy not in PREDICTED_LOADS:
        msg = f"a step after the load {load.strategy!r} cannot be predicted: use one of {', '.join(PREDICTED_LOADS)}"
        raise StepError(msg)
    dtype = load.asked_dtype or estimate(checkpoint, load=load.strategy).dtype
    if dtype not in FLOATS:
        msg = f"a step in {dtype} cannot be predicted: load in one of {', '.join(FLOATS)}"
        raise StepError(msg)
    if isinstance(step, GenerateSpec):
        step = step.caching_as(read_generation_config(checkpoint.path))
    quantized = load.strategy in {"int8", "nf4"}
    return PredictRequest(
        config=plain_config(read_config(checkpoint.path)),
        step=step,
        dtype=dtype,
        quantization=cast("Literal['int8', 'nf4']", load.strategy) if quantized else None,
        # BitsAndBytesConfig's own default, and the strategy names no other
        compute_dtype="float32" if load.strategy == "nf4" else None,
        device=device,
    )
