"""Each check passes on sound training, and fails on what it is there to find."""
# ruff: noqa: E402 -- imported after the skip

from typing import Any

import pytest

from tests.conftest import needs

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pytest_llmmem.models.steps import checks
from pytest_llmmem.models.steps.adapters import prepare
from pytest_llmmem.models.steps.batches import random_tokens
from pytest_llmmem.models.steps.checks import CHECKS, NotApplicableError
from pytest_llmmem.models.steps.laboratory import GENERATION, Laboratory
from pytest_llmmem.models.steps.spec import PredictRequest, TrainSpec
from tests.models.steps.sample_steps import LLAMA, MODELS

DEEP = LLAMA | {"num_hidden_layers": 4}


def laboratory(config: dict[str, Any] = DEEP, *, dtype: str = "bfloat16", **ways: Any) -> Laboratory:
    request = PredictRequest(config=config, step=TrainSpec(), dtype=dtype, device="cuda")
    return Laboratory(request=request, **ways)


def forward(model: Any, step: TrainSpec, **arguments: Any) -> Any:
    tokens = random_tokens(model, step.batch_size, step.seq_len, device="cpu")
    return model(input_ids=tokens, labels=tokens, **{"use_cache": False} | arguments)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("check", CHECKS)
def test_it_passes_on_sound_training(check: str, name: str) -> None:
    try:
        assert CHECKS[check](laboratory(MODELS[name] | {"num_hidden_layers": 4})) is None
    except NotApplicableError as why:
        assert (check, name) in {("kv_cache", "bert"), ("kv_cache", "t5")} or "peft" in str(why)  # noqa: PT017 -- which one


def in_eval_mode(model: Any, step: TrainSpec) -> Any:
    return prepare(model, step).eval()


def without_flags(model: Any, step: TrainSpec) -> Any:
    model = prepare(model, step)
    if step.lora:
        for module in model.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = False
    return model


@pytest.mark.parametrize("spoil", [in_eval_mode, pytest.param(without_flags, marks=needs("peft"))])
def test_checkpointing_without_effect_is_found(spoil: Any) -> None:
    complaint = checks.checkpointing_takes_effect(laboratory(prepare=spoil))

    assert complaint is not None
    assert "is the model in eval() mode" in complaint


def test_one_backward_for_all_batches_is_found() -> None:
    def train(model: Any, optimizer: Any, step: TrainSpec) -> None:
        for _ in range(step.steps):
            sum(forward(model, step).loss for _ in range(step.accumulation)).backward()
            optimizer.step()
            optimizer.zero_grad()

    complaint = checks.accumulation_costs_one_batch(laboratory(train=train))

    assert complaint is not None
    assert "call backward() for each batch" in complaint


def test_gradients_that_are_copied_are_found() -> None:
    def train(model: Any, optimizer: Any, step: TrainSpec) -> None:
        for _ in range(step.steps):
            copies = []
            for _ in range(step.accumulation):
                forward(model, step).loss.backward()
                if step.accumulation > 1:
                    copies = [each.grad.clone() for each in model.parameters() if each.grad is not None]
            optimizer.step()
            optimizer.zero_grad()
            copies.clear()

    complaint = checks.accumulation_costs_one_batch(laboratory(train=train))

    assert complaint is not None
    assert "they are there twice" in complaint


@pytest.mark.parametrize(
    "make",
    [
        lambda model, _: torch.optim.AdamW(model.parameters(), amsgrad=True),
        lambda model, _: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    ],
)
def test_an_optimizer_with_other_state_is_found(make: Any) -> None:
    complaint = checks.optimizer_state(laboratory(make_optimizer=make))

    assert complaint is not None
    assert "its name promises" in complaint


def test_temporary_copies_that_the_optimizer_s_name_does_not_promise_are_named() -> None:
    class Copying(torch.optim.AdamW):  # type: ignore[misc]
        def step(self, closure: Any = None) -> None:
            wide = [each.grad.float() for group in self.param_groups for each in group["params"]]
            super().step(closure)
            del wide

    complaint = checks.optimizer_state(
        laboratory(make_optimizer=lambda model, _: Copying(model.parameters(), foreach=True))
    )

    assert complaint is not None
    assert "of temporary tensors at once (aten._foreach_sqrt.default), 3.0 times the trained weights" in complaint


@needs("peft")
def test_weights_that_are_trained_beside_the_adapter_are_found() -> None:
    def thaw(model: Any, step: TrainSpec) -> Any:
        model = prepare(model, step)
        model.get_input_embeddings().requires_grad_(True)
        return model

    complaint = checks.only_adapter_trains(laboratory(prepare=thaw))

    assert complaint is not None
    assert "embed_tokens" in complaint


def test_losses_that_are_kept_are_found() -> None:
    def train(model: Any, optimizer: Any, step: TrainSpec) -> None:
        kept = []
        for _ in range(step.steps):
            outputs = forward(model, step)
            outputs.loss.backward()
            kept.append(outputs)
            optimizer.step()
            optimizer.zero_grad()

    complaint = checks.no_growth_after_step_2(laboratory(train=train))

    assert complaint is not None
    assert "keeps outputs, losses or graphs alive" in complaint


def test_an_evaluation_that_keeps_logits_is_found() -> None:
    def evaluate(model: Any, step: TrainSpec) -> None:
        gathered = []
        with torch.no_grad():
            for _ in range(step.steps):
                gathered.append(forward(model.eval(), step).logits)  # noqa: PERF401 -- as people write it

    complaint = checks.eval_frees(laboratory(evaluate=evaluate))

    assert complaint is not None
    assert "it keeps logits or graphs" in complaint


def test_an_evaluation_that_keeps_graphs_is_found() -> None:
    def evaluate(model: Any, step: TrainSpec) -> None:
        losses = [forward(model.eval(), step).loss for _ in range(step.steps)]
        del losses

    assert checks.eval_frees(laboratory(evaluate=evaluate)) is not None


def test_logits_that_are_kept_twice_are_found() -> None:
    def train(model: Any, optimizer: Any, step: TrainSpec) -> None:
        for _ in range(step.steps):
            outputs = forward(model, step)
            wide = outputs.logits.float()
            (outputs.loss + wide.square().mean()).backward()
            optimizer.step()
            optimizer.zero_grad()

    complaint = checks.logits(laboratory(train=train))

    assert complaint is not None
    assert "times in float32" in complaint


def test_a_cache_that_keeps_a_wider_copy_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.cache_utils import DynamicLayer

    update = DynamicLayer.update

    def widened(self: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        self.wide = key.float()
        return update(self, key, value, *args, **kwargs)

    monkeypatch.setattr(DynamicLayer, "update", widened)
    complaint = checks.kv_cache(laboratory())

    assert complaint is not None
    assert "are they in a wider dtype" in complaint


@pytest.mark.parametrize("kind", ["static", "quantized"])
def test_a_cache_of_another_kind_is_judged_by_its_own_formula(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    from transformers.cache_utils import Fp8QuantizedLayer, StaticLayer

    asked = {"cache_implementation": kind} | ({"cache_config": {"backend": "fp8"}} if kind == "quantized" else {})
    way = laboratory(generation=GENERATION.caching_as(asked))
    assert checks.kv_cache(way) is None
    layer = StaticLayer if kind == "static" else Fp8QuantizedLayer
    initialize = layer.lazy_initialization

    def widened(self: Any, key: Any, value: Any) -> None:
        initialize(self, key, value)
        self.wide = key.float()

    monkeypatch.setattr(layer, "lazy_initialization", widened)
    complaint = checks.kv_cache(way)

    assert complaint is not None
    assert f"of a {kind} cache" in complaint


def test_a_cache_that_cannot_be_made_skips_its_check() -> None:
    way = laboratory(generation=GENERATION.caching_as({"cache_implementation": "offloaded"}))

    with pytest.raises(NotApplicableError, match="needs a GPU"):
        checks.kv_cache(way)
