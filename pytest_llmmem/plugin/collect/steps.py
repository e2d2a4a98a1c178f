"""The steps of a test: what its markers say, and what a limit in terms of a step is predicted to be."""

from typing import Final, Literal, cast

import pytest

from pytest_llmmem.core.budgets import Limit, step_terms_of
from pytest_llmmem.core.errors import LlmmemError, MarkerError, StepError
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.model_config import read_config
from pytest_llmmem.models.estimates.estimate import estimate
from pytest_llmmem.models.sources.config_source import plain_config
from pytest_llmmem.models.steps.predictor import predict_apart
from pytest_llmmem.models.steps.spec import FLOATS, GenerateSpec, PredictRequest, TrainSpec
from pytest_llmmem.plugin.collect.loads import Load, load_of
from pytest_llmmem.plugin.markers import LlmGenerate, LlmTrain

PREDICTED_LOADS: Final = ("default", "float32", "float16", "bfloat16", "int8", "nf4")
"""Strategies after which a step can be predicted: all weights are on the device."""

_TRAIN_TERMS: Final = ("trainable", "gradients", "optimizer", "activations")
_GENERATE_TERMS: Final = ("kv_cache",)
"""Terms of a limit that the one and the other marker make known."""

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
    """Raises ``MarkerError`` for a marker that cannot be used, or that says how nothing is done."""
    names = getattr(item, "fixturenames", ())
    for marker in (LlmTrain, LlmGenerate):
        if marker.of(item) is not None and not any(fixture in names for fixture in _RUNS[marker.name]):
            msg = (
                f"{marker.name}: this test runs no such step: let it use the fixture {' or '.join(_RUNS[marker.name])}"
            )
            raise MarkerError(msg)


def step_terms(
    item: pytest.Item, checkpoint: Checkpoint, limit: Limit, *, device: Literal["cpu", "cuda"]
) -> dict[str, int]:
    """The terms of the test's steps that a limit names. Raises ``ValueError`` where one is not known, with the reason."""
    terms: dict[str, int] = {}
    for marker, known in ((LlmTrain.of(item), _TRAIN_TERMS), (LlmGenerate.of(item), _GENERATE_TERMS)):
        if marker is None:
            continue
        try:
            memory = predict_apart(request_of(checkpoint, load_of(item), marker.step, device=device)).memory
        except LlmmemError as error:
            msg = f"{limit.text!r} is in terms of a step that cannot be predicted: {error}"
            raise ValueError(msg) from None
        everything = step_terms_of(
            trainable=memory.trainable_parameters,
            trainable_bytes=memory.trainable_bytes,
            gradients=memory.gradients_bytes,
            optimizer=memory.optimizer_bytes,
            activations=memory.activations_bytes,
            kv_cache=memory.kv_cache_bytes,
        )
        terms |= {name: size for name, size in everything.items() if name.partition("@")[0] in known}
    for term in limit.terms:
        base = term.partition("@")[0]
        if base in (*_TRAIN_TERMS, *_GENERATE_TERMS) and term not in terms:
            needed = "llm_generate" if base in _GENERATE_TERMS else "llm_train"
            msg = (
                f"{limit.text!r} is in terms of a step, and nothing says what {base!r} is: mark the test with {needed}"
            )
            raise ValueError(msg)
    return terms


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
