"""The fixtures of steps: ``train_step``, ``generate_step``, ``predicted_step``, ``training_memory``."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_llmmem.core.steps import StepMemory
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
    from pytest_llmmem.models.loading.loaded import LoadedModel
    from pytest_llmmem.plugin.collect.loads import Load
    from pytest_llmmem.plugin.fixtures import Window
    from pytest_llmmem.plugin.worker.steps import MeasuredStep, TrainingBlock


@pytest.fixture
def train_step(
    loaded_model: "LoadedModel", llm_load: "Load", memory_window: "Window", request: pytest.FixtureRequest
) -> "MeasuredStep":
    """What training steps of the model took, run as the test's ``llm_train`` says: by kind, by phase, and at the peak.

    ``train_step.predict()`` is the same on fake tensors.
    """
    __tracebackhide__ = True
    from pytest_llmmem.models.steps.spec import TrainSpec
    from pytest_llmmem.plugin.markers import LlmTrain
    from pytest_llmmem.plugin.worker.steps import measure_step

    marker = LlmTrain.of(request.node)
    step = marker.step if marker else TrainSpec()
    return measure_step(loaded_model, llm_load, step, memory_window, request.config)


@pytest.fixture
def generate_step(
    loaded_model: "LoadedModel", llm_load: "Load", memory_window: "Window", request: pytest.FixtureRequest
) -> "MeasuredStep":
    """What generating text took, run as the test's ``llm_generate`` says, with keys and values as a kind of their own."""
    __tracebackhide__ = True
    from pytest_llmmem.models.steps.spec import GenerateSpec
    from pytest_llmmem.plugin.markers import LlmGenerate
    from pytest_llmmem.plugin.worker.steps import measure_step

    marker = LlmGenerate.of(request.node)
    step = marker.step if marker else GenerateSpec()
    return measure_step(loaded_model, llm_load, step, memory_window, request.config)


@pytest.fixture
def predicted_step(model_checkpoint: "Checkpoint", llm_load: "Load", request: pytest.FixtureRequest) -> "StepMemory":
    """What the steps of the test's ``llm_train`` or ``llm_generate`` are predicted to take on a card: nothing is loaded."""
    __tracebackhide__ = True
    from pytest_llmmem.plugin.worker.steps import predict_step

    return predict_step(model_checkpoint, llm_load, request.node)


@pytest.fixture
def training_memory(memory_window: "Window", pytestconfig: pytest.Config) -> "Callable[..., TrainingBlock]":
    """Measure a training loop of your own, Trainer's, accelerate's or Lightning's.

        with training_memory(model, optimizer) as spent:
            my_loop()
        assert spent.activations_bytes < 2 * 10**9

    Models and optimizers that are not given are found when they are used; those that are given count from the beginning.
    """
    from pytest_llmmem.plugin.worker.steps import TrainingBlock

    def measure(*watched: Any) -> TrainingBlock:
        return TrainingBlock(pytestconfig, memory_window, watched)

    return measure
