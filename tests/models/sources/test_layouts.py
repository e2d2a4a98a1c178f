"""Layouts against the published parameter counts, and against what transformers itself would save."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.models.sources.layouts import layout
from pytest_llmmem.models.sources.meta_interpreter import describe
from pytest_llmmem.models.sources.presets import PRESETS

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
}


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("polyglot-ko-1.3b", 1_331_810_304),
        ("polyglot-ko-12.8b", 12_893_603_840),
        ("midm-7b", 7_017_336_832),
        ("bert-base", 109_514_298),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
    ],
)
def test_a_preset_has_the_parameters_of_the_model_that_it_stands_for(preset: str, parameters: int) -> None:
    shapes = layout(PRESETS[preset].config)

    assert shapes is not None
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox"},
        {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "attention_bias": False},
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": True},
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": True, "mlp_bias": True},
        {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "head_dim": 16},
        {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
        {"architectures": ["BertForPreTraining"], "model_type": "bert"},
        {"architectures": ["BertForMaskedLM"], "model_type": "bert"},
    ],
    ids=lambda config: "-".join(str(value) for value in config.values()),
)
def test_a_layout_is_what_transformers_would_save(config: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = SMALL | config | {"torch_dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(config))

    answer = describe(tmp_path)

    assert layout(config) == {name: tuple(shape) for name, _, shape in answer["tensors"]}


@pytest.mark.parametrize(
    "config",
    [
        SMALL | {"architectures": ["T5ForConditionalGeneration"]},
        SMALL,
        {"architectures": ["LlamaForCausalLM"], "hidden_size": 32},
    ],
    ids=["unknown", "unnamed", "incomplete"],
)
def test_a_config_that_leaves_a_size_open_is_left_to_transformers(config: dict[str, Any]) -> None:
    assert layout(config) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", -1),
        ("num_hidden_layers", 2.0),
        ("num_hidden_layers", True),
        ("num_hidden_layers", None),
        ("hidden_size", "x" * 10**6),
        ("hidden_size", [0] * 100),
        ("vocab_size", 10**30),
        ("head_dim", {"a": 1}),
        ("num_key_value_heads", float("nan")),
    ],
)
def test_what_is_no_size_is_refused_by_its_name(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^'{key}' is .*, and not a whole number from 0 on$") as error:
        layout(SMALL | {"architectures": ["LlamaForCausalLM"], key: value})

    assert len(str(error.value)) < 200


def test_endless_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="a model of more than 180,000 tensors"):
        layout(SMALL | {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 10**15})


def test_a_model_without_heads_is_described() -> None:
    shapes = layout(SMALL | {"architectures": ["LlamaForCausalLM"], "num_attention_heads": 0})

    assert shapes is not None
    assert shapes["model.layers.0.self_attn.q_proj.weight"] == (0, 32)
