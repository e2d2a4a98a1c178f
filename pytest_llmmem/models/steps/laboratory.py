"""A small model of the same architecture on fake tensors, with a team's functions to prepare, train and evaluate it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.models.steps.adapters import prepare, quietly
from pytest_llmmem.models.steps.batches import random_tokens
from pytest_llmmem.models.steps.fake_model import build_on_meta, make_fake
from pytest_llmmem.models.steps.fake_tracker import FakeStorageTracker
from pytest_llmmem.models.steps.optimizers import make_optimizer
from pytest_llmmem.models.steps.prediction import on_fake_tensors
from pytest_llmmem.models.steps.spec import GenerateSpec, PredictRequest, TrainSpec
from pytest_llmmem.models.steps.training import extra_arguments, run_training

_LAYERS: Final = 4
VOCABULARY: Final = 256
"""Vocabulary size of the small model: a large head would hide the memory of its few layers."""

_PER_LAYER: Final = ("layer_types", "mlp_layer_types")
"""Keys of a config with an entry for each layer."""

GENERATION: Final = GenerateSpec(batch_size=2, prompt=24, new_tokens=8)

Prepare = Callable[[Any, TrainSpec], Any]
MakeOptimizer = Callable[[Any, TrainSpec], Any]
Loop = Callable[[Any, Any, TrainSpec], None]
Evaluate = Callable[[Any, TrainSpec], None]


def train(model: Any, optimizer: Any, step: TrainSpec) -> None:
    """The training loop to check when a team provides none."""
    run_training(model, optimizer, step, device="cpu")


def evaluate(model: Any, step: TrainSpec) -> None:
    """The evaluation to check when a team provides none: ``step.steps`` batches, a sum of losses."""
    model.eval()
    arguments, total = extra_arguments(model), 0.0
    with torch.no_grad():
        for _ in range(step.steps):
            tokens = random_tokens(model, step.batch_size, step.seq_len, device="cpu")
            total += model(input_ids=tokens, labels=tokens, **arguments).loss.item()


def default_optimizer(model: Any, step: TrainSpec) -> Any:
    """The optimizer that the step names, in its default mode on a GPU."""
    return make_optimizer(step.optimizer, model.parameters(), device="cuda", are_fake=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Laboratory:
    """An architecture, with the functions that train it."""

    request: PredictRequest
    """Its config, dtype and device; each experiment has its own step."""

    prepare: Prepare = prepare
    make_optimizer: MakeOptimizer = default_optimizer
    train: Loop = train
    evaluate: Evaluate = evaluate
    generation: GenerateSpec = GENERATION

    def trained(self, step: TrainSpec, *, vocabulary: int = VOCABULARY) -> StepMemory:
        """Memory of the training steps."""
        with self._model(step, vocabulary) as model:
            optimizer = self.make_optimizer(model, step)
            with self._tracked(model) as tracker:
                self.train(model, optimizer, step)
        return tracker.memory()

    def evaluated(self, step: TrainSpec) -> StepMemory:
        """Memory of the evaluation."""
        with self._model(step, VOCABULARY) as model, self._tracked(model) as tracker:
            self.evaluate(model, step)
        return tracker.memory()

    def trained_names(self, step: TrainSpec) -> tuple[str, ...]:
        """Names of the trainable parameters."""
        with self._model(step, VOCABULARY) as model:
            return tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)

    def small(self, vocabulary: int = VOCABULARY) -> PredictRequest:
        """The request of the small model."""
        return replace(self.request, config=small_config(self.request.config, vocabulary), quantization=None)

    @contextlib.contextmanager
    def _model(self, step: TrainSpec, vocabulary: int) -> Iterator[Any]:
        request = self.small(vocabulary)
        with quietly():
            with torch.device("meta"):
                model = self.prepare(build_on_meta(request.config, dtype=request.dtype), step)
            with on_fake_tensors(request):
                make_fake(model)
                yield model

    @contextlib.contextmanager
    def _tracked(self, model: Any) -> Iterator[FakeStorageTracker]:
        with FakeStorageTracker(model, device=self.request.device) as tracker:
            yield tracker


def small_config(raw: Mapping[str, Any], vocabulary: int) -> dict[str, Any]:
    """The config with few layers and that vocabulary size. Configs of models with several parts are supported."""
    import transformers

    config = transformers.CONFIG_MAPPING[raw["model_type"]].from_dict(dict(raw))
    text = config.get_text_config()
    for name in ("num_hidden_layers", "num_decoder_layers"):
        if isinstance(layers := getattr(text, name, None), int):
            setattr(text, name, min(layers, _LAYERS))
    for name in _PER_LAYER:
        if isinstance(kinds := getattr(text, name, None), list):
            setattr(text, name, kinds[: text.num_hidden_layers])
    text.vocab_size = vocabulary
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if isinstance(token := getattr(text, name, None), int) and token >= vocabulary:
            setattr(text, name, None)
    small: dict[str, Any] = config.to_dict()
    return small | {"architectures": raw.get("architectures")}
