"""What becomes of one tensor."""

import pytest

from pytest_llmmem.models.checkpoints.tensors import tensor
from pytest_llmmem.models.estimates.conversions import Kind, Quantization, convert, is_linear


@pytest.mark.parametrize(
    ("name", "shape", "linear"),
    [
        ("model.layers.0.mlp.up_proj.weight", (8, 4), True),
        ("gpt_neox.layers.0.attention.query_key_value.weight", (8, 4), True),
        ("bert.encoder.layer.0.attention.self.query.weight", (8, 4), True),
        ("model.layers.0.mlp.up_proj.bias", (8,), False),
        ("model.layers.0.input_layernorm.weight", (4,), False),
        ("model.embed_tokens.weight", (8, 4), False),
        ("gpt_neox.embed_in.weight", (8, 4), False),
        ("embed_out.weight", (8, 4), False),
        ("lm_head.weight", (8, 4), False),
        ("transformer.wte.weight", (8, 4), False),
        ("shared.weight", (8, 4), False),
        ("bert.embeddings.word_embeddings.weight", (8, 4), False),
        ("vision.conv1.weight", (8, 4, 2, 2), False),
    ],
)
def test_linear_weights_are_told_by_name_and_shape(name: str, shape: tuple[int, ...], linear: bool) -> None:
    assert is_linear(tensor(name, "float16", shape)) == linear


@pytest.mark.parametrize(
    ("dtype", "quantization", "made", "work"),
    [
        ("bfloat16", "int8", 6400 + 4 * 64, 10 * 6400),
        ("float16", "int8", 6400 + 4 * 64, (2 + 8) * 6400),
        ("bfloat16", "nf4", 3200 + 4 * 100, 14 * 6400),
        ("float16", "nf4", 3200 + 4 * 100, (2 + 14) * 6400),
        ("float32", "nf4", 3200 + 4 * 100, (4 + 10) * 6400),
    ],
)
def test_a_quantized_weight_is_first_cast_where_the_dtype_is_another(
    dtype: str, quantization: Quantization, made: int, work: int
) -> None:
    weight = Kind.of(tensor("model.layers.0.up.weight", "bfloat16", (64, 100)))

    conversion = convert(weight, dtype, quantization=quantization, stacks_experts=True)

    assert (conversion.made_bytes, conversion.work_bytes) == (made, work)


def test_integers_are_never_cast() -> None:
    positions = Kind.of(tensor("embeddings.position_ids", "int64", (1, 512)))

    assert convert(positions, "float32", quantization=None, stacks_experts=True).is_mapped
