"""Checks of how a model trains and generates: ``llmmem check SOURCE --steps``, or ``pytest --pyargs pytest_llmmem.step_checks``.

They run on fake tensors and a small model of the same architecture: neither weights nor a GPU are needed.

A team checks its own training code in a module of its own: it imports these names, and gives fixtures that take the place
of ``prepare_training``, ``make_optimizer``, ``training_loop``, ``evaluation_loop`` or ``generation_config``.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.model_config import read_generation_config
from pytest_llmmem.plugin.collect.loads import Load
from pytest_llmmem.plugin.collect.steps import request_of

if TYPE_CHECKING:
    from pytest_llmmem.models.steps.laboratory import Evaluate, Laboratory, Loop, MakeOptimizer, Prepare

pytestmark = pytest.mark.in_worker


@pytest.fixture
def prepare_training() -> "Prepare":
    """``prepare(model, step)`` returns the model as it is trained: adapter, checkpointing, frozen weights, mode."""
    from pytest_llmmem.models.steps.adapters import prepare

    return prepare


@pytest.fixture
def make_optimizer() -> "MakeOptimizer":
    """``make(model, step)`` returns the optimizer."""
    from pytest_llmmem.models.steps.laboratory import default_optimizer

    return default_optimizer


@pytest.fixture
def training_loop() -> "Loop":
    """``train(model, optimizer, step)`` does ``step.steps`` steps of ``step.accumulation`` batches."""
    from pytest_llmmem.models.steps.laboratory import train

    return train


@pytest.fixture
def evaluation_loop() -> "Evaluate":
    """``evaluate(model, step)`` evaluates ``step.steps`` batches."""
    from pytest_llmmem.models.steps.laboratory import evaluate

    return evaluate


@pytest.fixture
def generation_config(model_checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The entries of ``generation_config.json``, which name the kind of cache."""
    return read_generation_config(model_checkpoint.path)


@pytest.fixture
def laboratory(  # noqa: PLR0917 -- fixtures, by name
    model_checkpoint: Checkpoint,
    llm_load: Load,
    prepare_training: "Prepare",
    make_optimizer: "MakeOptimizer",
    training_loop: "Loop",
    evaluation_loop: "Evaluate",
    generation_config: Mapping[str, Any],
) -> "Laboratory":
    """The model's architecture, and how it is trained."""
    from pytest_llmmem.models.steps.laboratory import GENERATION, Laboratory
    from pytest_llmmem.models.steps.spec import TrainSpec

    return Laboratory(
        request=request_of(model_checkpoint, llm_load, TrainSpec(), device="cuda"),
        prepare=prepare_training,
        make_optimizer=make_optimizer,
        train=training_loop,
        evaluate=evaluation_loop,
        generation=GENERATION.caching_as(generation_config),
    )


def test_checkpointing_takes_effect(laboratory: "Laboratory") -> None:
    """Checkpointing halves what is kept for the backward pass, or better; with an adapter too."""
    _check("checkpointing_takes_effect", laboratory)


def test_accumulation_costs_one_batch(laboratory: "Laboratory") -> None:
    """Four batches of one sequence need no more than one of them, beside the gradients."""
    _check("accumulation_costs_one_batch", laboratory)


def test_optimizer_state(laboratory: "Laboratory") -> None:
    """The optimizer keeps what its name promises."""
    _check("optimizer_state", laboratory)


def test_only_adapter_trains(laboratory: "Laboratory") -> None:
    """With an adapter, no other weight has a gradient or optimizer state."""
    _check("only_adapter_trains", laboratory)


def test_no_growth_after_step_2(laboratory: "Laboratory") -> None:
    """From the second step on, each step peaks as high as the one before."""
    _check("no_growth_after_step_2", laboratory)


def test_eval_frees(laboratory: "Laboratory") -> None:
    """An evaluation of six batches takes no more than one of two."""
    _check("eval_frees", laboratory)


def test_logits(laboratory: "Laboratory") -> None:
    """Vocabulary by length is kept for the backward pass once, in float32."""
    _check("logits", laboratory)


def test_kv_cache(laboratory: "Laboratory") -> None:
    """Keys and values take as much memory as their formula predicts."""
    _check("kv_cache", laboratory)


def _check(name: str, laboratory: Any) -> None:
    __tracebackhide__ = True
    from pytest_llmmem.core.errors import StepError
    from pytest_llmmem.models.steps.checks import CHECKS, NotApplicableError

    try:
        complaint = CHECKS[name](laboratory)
    except NotApplicableError as error:
        pytest.skip(str(error))
    except StepError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    if complaint:
        pytest.fail(complaint, pytrace=False)
