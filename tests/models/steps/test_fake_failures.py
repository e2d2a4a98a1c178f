"""Models that fail on fake tensors: one sentence with the operation, the module and the measured way."""

from collections.abc import Callable
from typing import Any

import pytest

# ruff: noqa: E402, TID253 -- imported after the skip
LlamaMLP = pytest.importorskip("transformers.models.llama.modeling_llama").LlamaMLP

import torch

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.models.steps import fake_tracker
from pytest_llmmem.models.steps.laboratory import Laboratory
from pytest_llmmem.models.steps.prediction import predict
from pytest_llmmem.models.steps.spec import GenerateSpec, TrainSpec
from tests.models.steps.sample_steps import LLAMA, request

MEASURE = "measure the step instead, with the fixture train_step or generate_step"
STEP = TrainSpec(batch_size=2, seq_len=32)


@torch.library.custom_op("llmmem_test::twice", mutates_args=())
def twice(hidden: torch.Tensor) -> torch.Tensor:
    return hidden * 2


class ForwardInNumpy(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, hidden: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(hidden.numpy() * 2)

    @staticmethod
    def backward(_ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 2


class BackwardInNumpy(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * 2

    @staticmethod
    def backward(_ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(gradient.numpy() * 2)


def told(step: TrainSpec | GenerateSpec = STEP) -> str:
    with pytest.raises(StepError) as raised:
        predict(request(LLAMA, step))
    return str(raised.value)


@pytest.mark.parametrize("step", [STEP, GenerateSpec(prompt=8, new_tokens=4)], ids=["training", "generating"])
@pytest.mark.parametrize(
    ("change", "what", "why"),
    [
        (lambda x: len(x.nonzero()), "aten.nonzero.default", "DynamicOutputShapeException"),
        (lambda x: twice(x.detach()), "llmmem_test.twice.default", "RuntimeError"),
        (lambda x: x.split(x.argmax(1)[0].tolist(), dim=1)[0], "aten.split_with_sizes.default", "RuntimeError"),
        (lambda x: float(x.detach().numpy().sum()), "test_fake_failures.py:", "RuntimeError: .numpy()"),
        (ForwardInNumpy.apply, "test_fake_failures.py:", "RuntimeError: .numpy()"),
        (lambda x: {7: 1.0}[int(x.sum().item())], "test_fake_failures.py:", "KeyError: 1"),
    ],
    ids=["shape by values", "own operation", "sizes by values", "numpy", "numpy in a Function", "choice by a value"],
)
def test_the_operation_or_the_line_and_the_module_are_named(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], what: str, why: str, step: TrainSpec | GenerateSpec
) -> None:
    forward = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: forward(self, x) + change(x))

    sentence = told(step)

    assert sentence.startswith(what)
    assert f" in model.layers.0.mlp fails on fake tensors, which have no values ({why}" in sentence
    assert MEASURE in sentence
    assert "\n" not in sentence


def test_a_backward_pass_is_named_by_the_module_of_its_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: BackwardInNumpy.apply(forward(self, x)))

    sentence = told()

    assert sentence.startswith("test_fake_failures.py:")
    assert " in model.layers.1.mlp fails on fake tensors" in sentence


def test_a_loop_that_ends_by_a_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LlamaMLP.forward

    def until_small(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        result, left = forward(self, hidden), hidden.detach().abs().max()
        while not left < 1e-3:
            left = left / 2
        return result * left

    monkeypatch.setattr(LlamaMLP, "forward", until_small)
    monkeypatch.setattr(fake_tracker, "_MOST_VALUES", 1000)

    sentence = told()

    assert " in model.layers.0.mlp fails on fake tensors" in sentence
    assert "more than 1,000 values were asked for: a loop that ends by a value does not end" in sentence


def test_a_model_that_is_built_by_values_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    init = LlamaMLP.__init__

    def by_value(self: Any, config: Any) -> None:
        init(self, config)
        self.scale = torch.ones(3).sum().item()

    monkeypatch.setattr(LlamaMLP, "__init__", by_value)

    with pytest.raises(StepError, match=r" in LlamaMLP fails on fake tensors.*Tensor\.item\(\) cannot") as raised:
        Laboratory(request=request(LLAMA, STEP)).trained_names(STEP)

    assert told() == str(raised.value)


def evaluate_in_numpy(model: Any, step: TrainSpec) -> None:
    tokens = torch.ones((step.batch_size, step.seq_len), dtype=torch.long)
    model(input_ids=tokens).logits.detach().numpy()


def evaluate_by_mistake(_model: Any, step: TrainSpec) -> None:
    step.no_such_field  # type: ignore[attr-defined]  # noqa: B018 -- the mistake


def test_values_that_a_loop_of_one_s_own_reads_are_named_and_its_mistakes_keep_their_traceback() -> None:
    with pytest.raises(StepError, match=r"^test_fake_failures\.py:\d+ fails on fake tensors.*numpy"):
        Laboratory(request=request(LLAMA, STEP), evaluate=evaluate_in_numpy).evaluated(STEP)

    with pytest.raises(AttributeError, match="no_such_field"):
        Laboratory(request=request(LLAMA, STEP), evaluate=evaluate_by_mistake).evaluated(STEP)
