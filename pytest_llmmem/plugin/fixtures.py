"""The fixtures: models, loads, blocks, growth, and steps of training and inference."""

import os
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmmem.plugin.options import value_of
from pytest_llmmem.plugin.state import MODELS, RANK, TRIALS

if TYPE_CHECKING:
    from pytest_llmmem.core.growth import MemoryGrowth
    from pytest_llmmem.core.steps import StepMemory
    from pytest_llmmem.measuring.blocks import MemoryBudget
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
    from pytest_llmmem.models.loading.loaded import LoadedModel
    from pytest_llmmem.models.sources.source import Source
    from pytest_llmmem.plugin.collect.loads import Load
    from pytest_llmmem.plugin.settings import Scope
    from pytest_llmmem.plugin.worker.steps import MeasuredStep, TrainingBlock


def _model_scope(fixture_name: str, config: pytest.Config) -> "Scope":  # noqa: ARG001 -- pytest's signature
    scope: Scope = value_of(config, "scope")
    return scope


@pytest.fixture(scope="session")
def llm_model(request: pytest.FixtureRequest) -> "Source":
    """The model source that this test is parametrized with."""
    if not hasattr(request, "param"):
        pytest.skip("needs a model: pass --llm-model=SOURCE, or set llm_model in the ini file")
    source: Source = request.param
    return source


@pytest.fixture(scope="session")
def model_checkpoint(llm_model: "Source", pytestconfig: pytest.Config) -> "Checkpoint":
    """The checkpoint's headers, without loading it: parameters, bytes by dtype, shards, defects."""
    from pytest_llmmem.plugin.worker.loaded_model import failing_plainly

    with failing_plainly():
        return pytestconfig.stash[MODELS].checkpoint(llm_model)


@pytest.fixture(scope="session")
def llm_load(request: pytest.FixtureRequest) -> "Load":
    """How the model of this test is loaded: by ``llm_load``, ``--llm-load``, or ``default``."""
    from pytest_llmmem.plugin.collect.loads import Load

    chosen: Load = getattr(request, "param", Load())
    return chosen


@pytest.fixture(scope=_model_scope)
def loaded_model(
    model_checkpoint: "Checkpoint", llm_load: "Load", pytestconfig: pytest.Config
) -> "Generator[LoadedModel]":
    """The model, loaded in this test's worker; the load is a phase of its own."""
    __tracebackhide__ = True
    from pytest_llmmem.plugin.worker.loaded_model import load_for_test

    yield from load_for_test(model_checkpoint, llm_load, pytestconfig)


@pytest.fixture
def first_load_that_fits(model_checkpoint: "Checkpoint", pytestconfig: pytest.Config) -> "Generator[LoadedModel]":
    """The model, loaded by the first strategy that stays within the test's max_ram.

    Each was tried in a worker of its own before the test; those of ``--llm-load``, or all that are offered. Fails
    with the table when none fits.
    """
    __tracebackhide__ = True
    from pytest_llmmem.plugin.worker.loaded_model import first_fitting, load_for_test

    trials = pytestconfig.stash.get(TRIALS, None)
    if trials is None:
        pytest.skip("first_load_that_fits tries loads in workers, and nothing is isolated here")
    yield from load_for_test(model_checkpoint, first_fitting(trials), pytestconfig)


@pytest.fixture(scope="session")
def rank(pytestconfig: pytest.Config) -> int:
    """The number of this process among the ranks of the test, from 0; 0 where there is only one.

    In a session that ``torchrun`` has started, the rank of the session.
    """
    from pytest_llmmem.core.launch import rank_of

    own = pytestconfig.stash.get(RANK, None)
    return own.number if own else rank_of(os.environ) or 0


@pytest.fixture
def process_group(pytestconfig: pytest.Config) -> Any:
    """The default process group of torch over the ranks of the test: nccl where each rank has a GPU, else gloo."""
    from pytest_llmmem.core.launch import rank_of

    own = pytestconfig.stash.get(RANK, None)
    if own is None and rank_of(os.environ) is None:
        pytest.skip("process_group needs ranks: mark the test with in_worker(ranks=2), or pass --llm-ranks=2")
    from pytest_llmmem.plugin.worker.ranks import join_process_group

    return join_process_group(own)


@pytest.fixture(scope="session")
def memory_budget() -> "Callable[..., MemoryBudget]":
    """Give a block a budget of its own, in a test or in a fixture of any scope.

        with memory_budget("300MB", name="generate") as spent:
            model.generate(...)

    ``limit`` is what ``max_ram`` takes, or ``None`` to measure only; ``spent.peak`` is known after the block. The
    block is a phase of its own in the report.
    """
    from pytest_llmmem.measuring import blocks

    return blocks.memory_budget


@pytest.fixture(scope="session")
def memory_growth() -> "Callable[..., MemoryGrowth]":
    """Call a function again and again, in a test or in a fixture of any scope, and know what each call leaves.

        growth = memory_growth(lambda: model.generate(**inputs), repeat=20, warmup=3)
        assert growth.per_call_bytes <= growth.error_bytes

    The calls are one phase in the report.
    """
    from pytest_llmmem.measuring import growth

    return growth.memory_growth


@pytest.fixture
def train_step(loaded_model: "LoadedModel", llm_load: "Load", request: pytest.FixtureRequest) -> "MeasuredStep":
    """Memory of the training steps that the test's ``llm_train`` describes: by kind, by phase, and at the peak.

    ``train_step.predict()`` is the same on fake tensors.
    """
    __tracebackhide__ = True
    from pytest_llmmem.models.steps.spec import TrainSpec
    from pytest_llmmem.plugin.step_markers import LlmTrain
    from pytest_llmmem.plugin.worker.steps import measure_step

    marker = LlmTrain.of(request.node)
    step = marker.step if marker else TrainSpec()
    return measure_step(loaded_model, llm_load, step, request.config)


@pytest.fixture
def generate_step(loaded_model: "LoadedModel", llm_load: "Load", request: pytest.FixtureRequest) -> "MeasuredStep":
    """Memory of the generation that the test's ``llm_generate`` describes, with keys and values as a separate kind."""
    __tracebackhide__ = True
    from pytest_llmmem.models.steps.spec import GenerateSpec
    from pytest_llmmem.plugin.step_markers import LlmGenerate
    from pytest_llmmem.plugin.worker.steps import measure_step

    marker = LlmGenerate.of(request.node)
    step = marker.step if marker else GenerateSpec()
    return measure_step(loaded_model, llm_load, step, request.config)


@pytest.fixture
def predicted_step(model_checkpoint: "Checkpoint", llm_load: "Load", request: pytest.FixtureRequest) -> "StepMemory":
    """Predicted memory on a GPU for the steps of the test's ``llm_train`` or ``llm_generate``: nothing is loaded."""
    __tracebackhide__ = True
    from pytest_llmmem.plugin.worker.steps import predict_step

    return predict_step(model_checkpoint, llm_load, request.node)


@pytest.fixture
def training_memory() -> "Callable[..., TrainingBlock]":
    """Measure a training loop of your own, Trainer's, accelerate's or Lightning's.

        with training_memory(model, optimizer) as spent:
            my_loop()
        assert spent.activations_bytes < 2 * 10**9

    Models and optimizers that are not given are found when they are used; those that are given count from the beginning.
    """
    from pytest_llmmem.plugin.worker.steps import TrainingBlock

    def measure(*watched: Any) -> TrainingBlock:
        return TrainingBlock(watched)

    return measure
