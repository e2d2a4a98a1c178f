"""The plan of a tensor parallel load: the weights that it splits, and the numbers of ranks that it is for."""

from typing import Any, ClassVar

import pytest

from pytest_llmmem.models.loading.request import installed
from pytest_llmmem.models.loading.tensor_plan import is_split, plan_of, undivided_heads
from tests.conftest import needs

pytestmark = [
    needs("torch", "transformers"),
    pytest.mark.skipif(installed("transformers") < (5,), reason="older plans have other words"),
]

PLAN = {
    "lm_head": "colwise_gather_output",
    "model.layers.*.self_attn.o_proj": "rowwise",
    "model.layers.*.self_attn.q_norm": "replicated_with_grad_allreduce",
    "model.layers.*.mlp.experts": "moe_tp_experts",
    "model.layers.*.mlp.experts.gate_up_proj": "packed_colwise",
}


@pytest.mark.parametrize(
    ("name", "dimensions", "split"),
    [
        ("lm_head.weight", 2, True),
        ("lm_head.bias", 1, True),
        ("model.layers.11.self_attn.o_proj.weight", 2, True),
        ("model.layers.11.self_attn.o_proj.bias", 1, False),
        ("model.layers.0.self_attn.q_norm.weight", 1, False),
        ("model.layers.0.mlp.experts.gate_up_proj", 3, True),
        ("model.layers.0.mlp.gate.weight", 2, False),
        ("gpt_neox.embed_in.weight", 2, False),
    ],
)
def test_a_plan_names_the_weights_that_it_splits(name: str, dimensions: int, split: bool) -> None:
    import torch

    assert is_split(PLAN, name, torch.empty([1] * dimensions)) == split


def test_the_rules_of_the_class_are_in_the_plan_of_its_model() -> None:
    class Model:
        _tp_plan: ClassVar = {"lm_head": "colwise"}

    model = Model()
    model._tp_plan = {"model.layers.*.mlp.up_proj": "colwise"}  # as transformers 5.6 replaces it

    assert plan_of(model) == {"lm_head": "colwise", "model.layers.*.mlp.up_proj": "colwise"}
    assert plan_of(object()) == {}


@pytest.mark.parametrize(
    ("config", "values", "ranks", "heads"),
    [
        ("LlamaConfig", {"num_attention_heads": 4, "num_key_value_heads": 2}, 2, ()),
        ("LlamaConfig", {"num_attention_heads": 4, "num_key_value_heads": 2}, 4, (2, 4)),
        ("LlamaConfig", {"num_attention_heads": 6, "hidden_size": 48}, 4, (6,)),
        ("GPTNeoXConfig", {"num_attention_heads": 4, "hidden_size": 64}, 8, (4,)),
        ("Phi3Config", {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}, 4, ()),
        ("GPT2Config", {"n_head": 3}, 2, ()),
    ],
    ids=["fits", "keys and values", "queries", "one projection", "gathered before it is used", "without a plan"],
)
def test_ranks_share_whole_heads_where_the_plan_splits_attention(
    config: str, values: dict[str, Any], ranks: int, heads: tuple[int, ...]
) -> None:
    import transformers

    assert undivided_heads(getattr(transformers, config)(**values), ranks) == heads


def test_the_heads_of_a_composite_model_are_those_of_its_text() -> None:
    import transformers

    text = transformers.LlamaConfig(num_attention_heads=4, num_key_value_heads=2)

    assert undivided_heads(transformers.LlavaConfig(text_config=text), 4) == (2, 4)
