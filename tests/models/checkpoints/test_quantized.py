"""Quantized checkpoints: recognised, and their parameters counted as those of the model that was quantized."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.checkpoints.safetensors_file import write_holes
from pytest_llmmem.models.checkpoints.tensors import Tensor, tensor

EMBEDDING = tensor("model.embed.weight", "float16", (100, 64))
OUT, IN = 128, 256


def checkpoint(folder: Path, config: dict[str, Any], tensors: Sequence[Tensor]) -> Checkpoint:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    write_holes(folder / "model.safetensors", (EMBEDDING, *tensors))
    return read_checkpoint(folder)


GPTQ = [
    tensor("l.qweight", "int32", (IN // 8, OUT)), tensor("l.qzeros", "int32", (2, OUT // 8)),
    tensor("l.scales", "float16", (2, OUT)), tensor("l.g_idx", "int32", (IN,)),
]  # fmt: skip
AWQ = [
    tensor("l.qweight", "int32", (IN, OUT // 8)), tensor("l.qzeros", "int32", (2, OUT // 8)),
    tensor("l.scales", "float16", (2, OUT)),
]  # fmt: skip
PACKED = [
    tensor("l.weight_packed", "int32", (OUT, IN // 8)), tensor("l.weight_scale", "bfloat16", (OUT, 2)),
    tensor("l.weight_shape", "int64", (2,)),
]  # fmt: skip
NF4 = [
    tensor("l.weight", "uint8", (OUT * IN // 2, 1)), tensor("l.weight.absmax", "uint8", (512,)),
    tensor("l.weight.quant_map", "float32", (16,)), tensor("l.weight.nested_absmax", "float32", (2,)),
    tensor("l.weight.nested_quant_map", "float32", (256,)),
    tensor("l.weight.quant_state.bitsandbytes__nf4", "uint8", (120,)),
]  # fmt: skip
FP8 = [tensor("l.weight", "float8_e4m3fn", (OUT, IN)), tensor("l.weight_scale_inv", "float32", (1, 2))]
MXFP4 = [tensor("l.gate_blocks", "uint8", (OUT, IN // 32, 16)), tensor("l.gate_scales", "uint8", (OUT, IN // 32))]
NVFP4 = [
    tensor("l.weight", "uint8", (OUT, IN // 2)), tensor("l.weight_scale", "float8_e4m3fn", (OUT, IN // 16)),
    tensor("l.weight_scale_2", "float32", ()), tensor("l.input_scale", "float32", ()),
]  # fmt: skip
MLX = [
    tensor("l.weight", "uint32", (OUT, IN // 8)), tensor("l.scales", "float16", (OUT, IN // 64)),
    tensor("l.biases", "float16", (OUT, IN // 64)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "config", "tensors"),
    [
        ("gptq", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, GPTQ),
        ("awq", {"quantization_config": {"quant_method": "awq", "bits": 4}}, AWQ),
        (
            "compressed-tensors",
            {"quantization_config": {
                "quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}
            }},
            PACKED,
        ),
        ("bitsandbytes", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, NF4),
        ("fp8", {"quantization_config": {"quant_method": "fp8"}}, FP8),
        ("mxfp4", {"quantization_config": {"quant_method": "mxfp4"}}, MXFP4),
        ("modelopt", {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, NVFP4),
        ("mlx", {"quantization": {"bits": 4, "group_size": 64}}, MLX),
    ],
)  # fmt: skip
def test_the_parameters_are_those_of_the_model_that_was_quantized(
    tmp_path: Path, method: str, config: dict[str, Any], tensors: list[Tensor]
) -> None:
    found = checkpoint(tmp_path, config, tensors)

    assert found.quantization == method
    assert found.parameters == 100 * 64 + OUT * IN
    assert found.nbytes_in("bfloat16") == 2 * found.parameters
    assert found.dtype in {"float16", "float8_e4m3fn"}
    assert found.estimate(load="default").peak_bytes is None


@pytest.mark.parametrize(
    ("method", "tensors"),
    [("gptq", GPTQ), ("compressed-tensors", PACKED), ("bitsandbytes", NF4), ("fp8", FP8), ("mxfp4", MXFP4)],
)
def test_a_method_is_told_from_the_names_without_a_config(tmp_path: Path, method: str, tensors: list[Tensor]) -> None:
    found = checkpoint(tmp_path, {}, tensors)

    assert (found.quantization, found.parameters) == (method, 100 * 64 + OUT * IN)


def test_eight_bits_are_unpacked_as_the_config_says(tmp_path: Path) -> None:
    eight = [tensor("l.qweight", "int32", (IN // 4, OUT)), tensor("l.scales", "float16", (2, OUT))]

    found = checkpoint(tmp_path, {"quantization_config": {"quant_method": "gptq", "bits": 8}}, eight)

    assert found.parameters == 100 * 64 + OUT * IN


def test_three_bits_are_packed_across_the_borders_of_words(tmp_path: Path) -> None:
    three = [tensor("l.qweight", "int32", (IN * 3 // 32, OUT)), tensor("l.scales", "float16", (2, OUT))]

    found = checkpoint(tmp_path, {"quantization_config": {"quant_method": "gptq", "bits": 3}}, three)

    assert found.parameters == 100 * 64 + OUT * IN


def test_a_plain_model_with_a_module_called_scales_is_counted_whole(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, {}, [tensor("l.scales", "float32", (7,)), tensor("l.biases", "float32", (3,))])

    assert (found.quantization, found.parameters) == (None, 100 * 64 + 10)
