"""A step on fake tensors, in this process: neither weights nor a device are needed."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch

from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.models.steps.adapters import check_length, prepare, quietly
from pytest_llmmem.models.steps.device_rules import rules_of
from pytest_llmmem.models.steps.fake_failures import failures_named
from pytest_llmmem.models.steps.fake_model import build_on_meta, make_fake
from pytest_llmmem.models.steps.fake_tracker import FakeStorageTracker
from pytest_llmmem.models.steps.generation import run_generation
from pytest_llmmem.models.steps.optimizers import make_optimizer
from pytest_llmmem.models.steps.phases import GenerationPhases
from pytest_llmmem.models.steps.quantized import quantize_fake
from pytest_llmmem.models.steps.replay import track_training
from pytest_llmmem.models.steps.spec import GenerateSpec, PredictRequest, TrainSpec
from pytest_llmmem.models.steps.torch_internals import (
    FakeTensorMode,
    transformers_as_in_a_run,
)


def predict(request: PredictRequest) -> StepMemory:
    """Predict the memory of the step. Raises ``StepError``, with the reason, where that is impossible."""
    with predicting(request) as measure:
        return measure(request.step)


@contextlib.contextmanager
def predicting(request: PredictRequest) -> Iterator[Callable[[TrainSpec | GenerateSpec], StepMemory]]:
    """A function that predicts steps of the request's model, also with another batch or length. The model is built once."""
    with quietly(), failures_named():
        model = _built(request)
    with quietly(), failures_named(), on_fake_tensors(request):
        make_fake(model)
        if request.quantization is not None:
            compute_dtype = getattr(torch, request.compute_dtype or request.dtype)
            quantize_fake(model, request.quantization, compute_dtype=compute_dtype, nested=request.quantizes_scales)

        def measure(step: TrainSpec | GenerateSpec) -> StepMemory:
            check_length(model.config, step)
            phases = None if isinstance(step, TrainSpec) else GenerationPhases()
            tracker = FakeStorageTracker(model, phases=phases, device=request.device)
            _run(model, step, tracker, device=request.device)
            name = "train_step" if isinstance(step, TrainSpec) else "generate_step"
            return tracker.memory(name)

        yield measure


@contextlib.contextmanager
def on_fake_tensors(request: PredictRequest) -> Iterator[None]:
    """Make all new tensors fake, under the rules of the request's device."""
    with FakeTensorMode(allow_non_fake_inputs=True), rules_of(request.device), transformers_as_in_a_run():
        yield


def _built(request: PredictRequest) -> Any:
    """The prepared model, on ``meta``: a module's own methods cannot replace fake parameters."""
    model = build_on_meta(request.config, dtype=request.dtype)
    if request.quantization is not None:
        model.requires_grad_(False)
    if isinstance(request.step, TrainSpec):
        with torch.device("meta"):
            model = prepare(model, request.step)
    else:
        model.eval()
    return model


def _run(
    model: Any, step: TrainSpec | GenerateSpec, tracker: FakeStorageTracker, *, device: Literal["cpu", "cuda"]
) -> None:
    if isinstance(step, TrainSpec):
        optimizer = make_optimizer(step.optimizer, model.parameters(), device=device, are_fake=True)
        track_training(model, optimizer, step, tracker)
    else:
        with tracker:
            run_generation(model, step, device="cpu")
