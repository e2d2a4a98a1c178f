"""What the tests of loads share: checkpoints of random numbers, loading them without a plugin, and what they compute."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.loading.load_model import load_model
from pytest_llmmem.models.loading.loaded import LoadedModel
from pytest_llmmem.models.loading.request import LoadRequest, installed
from pytest_llmmem.models.loading.strategies import find_strategy
from pytest_llmmem.models.loading.strategy import Strategy
from pytest_llmmem.models.sources.presets import PRESETS
from pytest_llmmem.models.sources.synthetic import SyntheticSpec, write_synthetic

LLAMA = PRESETS["tiny-llama"].config | {"num_hidden_layers": 2}
NEOX = PRESETS["tiny-neox"].config | {"num_hidden_layers": 2, "max_position_embeddings": 32}
TIED = LLAMA | {"tie_word_embeddings": True}
BERT = PRESETS["bert-base"].config | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 32,
}
MIXTURE = LLAMA | {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 8,
    "max_position_embeddings": 32,
    "sliding_window": None,
}
MERGES_EXPERTS = installed("transformers") >= (5,)
"""transformers 5 stacks the experts of a mixture into one tensor; before, each was a layer of its own."""


def written(folder: Path, config: dict[str, Any], **spec: Any) -> Checkpoint:
    """A checkpoint of random numbers, in two shards or more."""
    options = {"dtype": "float32", "shard_bytes": 150_000, "fill": "random"} | spec
    write_synthetic(SyntheticSpec(name="made", config_json=json.dumps(config), **options), folder / "made")
    return read_checkpoint(folder / "made", source="synthetic:made")


def request(
    checkpoint: Checkpoint, folder: Path, *, host: int | None = None, device: str | None = None, **options: Any
) -> LoadRequest:
    """A request with an offload folder of its own below ``folder``."""
    (folder / "offload").mkdir(exist_ok=True)
    return LoadRequest(
        checkpoint=checkpoint,
        options=options,
        offload_folder=folder / "offload",
        host_available_bytes=host,
        device=device,
    )


def load(asked: LoadRequest, name: str = "default", own: tuple[Strategy, ...] = ()) -> LoadedModel:
    """The model, with nothing measured."""
    return load_model(asked, find_strategy(name, own), lambda: contextlib.nullcontext(SimpleNamespace(peak=None)))


def outputs(model: Any) -> Any:
    """What the model computes from a few tokens, as float32."""
    import torch

    with torch.inference_mode():
        found = model(torch.arange(1, 9)[None])
    return (found.logits if "logits" in found else found.last_hidden_state).float()
