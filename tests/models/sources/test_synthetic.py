"""Synthetic checkpoints: whole, cheap, and loaded as the real ones are."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.errors import SourceError
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.checkpoints.tensors import tensor
from pytest_llmmem.models.sources import meta_interpreter
from pytest_llmmem.models.sources.presets import PRESETS
from pytest_llmmem.models.sources.synthetic import Fill, SyntheticSpec, split_into_shards, write_synthetic
from tests.conftest import needs


def spec_of(preset: str, **changes: Any) -> SyntheticSpec:
    config = PRESETS[preset].config
    spec = SyntheticSpec(name=preset, config_json=json.dumps(config), dtype=config["torch_dtype"], shard_bytes=10**9)
    return replace(spec, **changes)


def written(spec: SyntheticSpec, folder: Path) -> Checkpoint:
    write_synthetic(spec, folder)
    return read_checkpoint(folder)


@given(st.lists(st.integers(0, 100), max_size=30), st.integers(1, 100))
def test_shards_hold_every_tensor_once_and_in_size(sizes: list[int], limit: int) -> None:
    tensors = [tensor(str(number), "int8", (size,)) for number, size in enumerate(sizes)]

    shards = split_into_shards(tensors, limit)

    assert sorted(each.name for shard in shards for each in shard) == sorted(each.name for each in tensors)
    assert all(sum(each.nbytes for each in shard) <= limit or len(shard) == 1 for shard in shards)
    assert all(shards)


@given(st.lists(st.integers(1, 100), max_size=30), st.integers(1, 100))
def test_shards_are_those_of_save_pretrained(sizes: list[int], limit: int) -> None:
    serialization = pytest.importorskip("huggingface_hub.serialization._base")
    tensors = [tensor(str(number), "int8", (size,)) for number, size in enumerate(sizes)]

    theirs = serialization.split_state_dict_into_shards_factory(
        {each.name: each for each in tensors},
        get_storage_size=lambda each: each.nbytes,
        get_storage_id=lambda _: None,
        filename_pattern="{suffix}",
        max_shard_size=limit,
    )

    ours = [[each.name for each in shard] for shard in split_into_shards(tensors, limit)]
    assert ours == [names for names in theirs.filename_to_tensors.values() if names]


@pytest.mark.parametrize("weights_format", ["safetensors", "bin"])
def test_26_gigabytes_take_three_megabytes_of_disk_at_most(tmp_path: Path, weights_format: str) -> None:
    checkpoint = written(spec_of("polyglot-ko-12.8b", format=weights_format), tmp_path / "made")

    assert checkpoint.weights_bytes == 25_787_207_680
    assert len(checkpoint.shards) == 28
    assert (checkpoint.missing, checkpoint.truncated, checkpoint.format) == ((), (), weights_format)
    if hasattr(os.stat_result, "st_blocks"):
        assert sum(path.stat().st_blocks * 512 for path in tmp_path.rglob("*")) < 3_000_000


def test_the_config_names_the_dtype_that_the_weights_have(tmp_path: Path) -> None:
    checkpoint = written(spec_of("tiny-llama", dtype="float32"), tmp_path / "made")

    assert checkpoint.bytes_by_dtype == {"float32": checkpoint.weights_bytes}
    assert json.loads((tmp_path / "made" / "config.json").read_text())["torch_dtype"] == "float32"


def test_equal_specs_have_equal_keys_and_others_do_not() -> None:
    assert spec_of("tiny-llama").key == spec_of("tiny-llama").key
    assert len({spec_of("tiny-llama", **change).key for change in ({}, {"fill": "random"}, {"shard_bytes": 1})}) == 3


def test_a_folder_that_could_not_be_finished_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pytest_llmmem.models.checkpoints.safetensors_file.write_holes", fail)

    with pytest.raises(OSError, match="No space left"):
        write_synthetic(spec_of("tiny-llama"), tmp_path / "made")

    assert list(tmp_path.iterdir()) == []


def test_a_config_that_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    spec = replace(spec_of("tiny-llama"), config_json='{"model_type": "made-up"}')

    with pytest.raises(SourceError, match=r"transformers builds no model from this config .*made-up"):
        write_synthetic(spec, tmp_path / "made")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"hidden_size": "wide"}, "'hidden_size' is 'wide', and not a whole number"),
        ({"num_hidden_layers": 10**9}, "a model of more than 180,000 tensors"),
        ({"vocab_size": 2**62}, "would have more than 9223372036854775807 bytes"),
    ],
)
def test_a_config_that_no_model_can_have_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    spec = replace(spec_of("tiny-llama"), config_json=json.dumps(PRESETS["tiny-llama"].config | changes))

    with pytest.raises(
        SourceError, match=rf"^synthetic:tiny-llama: no model has such a config \(.*{why}.*\): name the config"
    ):
        write_synthetic(spec, tmp_path / "made")

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["pipeline", "no_such", "LlamaConfig", "__dict__"])
def test_an_architecture_that_is_no_model_is_not_called(tmp_path: Path, name: str) -> None:
    pytest.importorskip("transformers")
    spec = replace(spec_of("tiny-llama"), config_json=json.dumps({"model_type": "llama", "architectures": [name]}))

    with pytest.raises(SourceError, match=f"{name} is no model of transformers"):
        write_synthetic(spec, tmp_path / "made")


def test_attention_that_is_fetched_from_the_hub_is_not_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = {"model_type": "llama", "attn_implementation": "org/kernel", "num_hidden_layers": 1, "hidden_size": 8}
    spec = replace(spec_of("tiny-llama"), config_json=json.dumps(config | {"num_attention_heads": 2}))

    assert written(spec, tmp_path / "made").parameters > 0


@needs("prlimit")
def test_a_model_of_endless_layers_does_not_take_all_memory() -> None:
    program = """
from pytest_llmmem.models.sources import meta_layout
meta_layout.describe = lambda config: bytearray(meta_layout._DATA_BYTES)
meta_layout.main()
"""

    done = subprocess.run([sys.executable, "-c", program], input="a\nb\n", capture_output=True, text=True, check=False)

    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"error": "MemoryError"}] * 2


def test_a_model_that_takes_too_long_to_build_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta_interpreter.end()
    monkeypatch.setattr("pytest_llmmem.models.sources.meta_interpreter._PATIENCE_S", 0.1)
    spec = replace(spec_of("tiny-llama"), config_json='{"model_type": "llama"}')

    with pytest.raises(SourceError, match=r"builds no model from this config \(it takes longer than 0\.1 s\)"):
        write_synthetic(spec, tmp_path / "made")


def loaded(folder: Path, auto: str) -> tuple[Any, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    model, info = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    return model, info


@pytest.mark.parametrize("preset", ["tiny-llama", "tiny-neox"])
@pytest.mark.parametrize("weights_format", ["safetensors", "bin"])
@pytest.mark.parametrize("shard_bytes", [10**9, 10**5])
def test_transformers_finds_every_weight_and_no_other(
    tmp_path: Path, preset: str, weights_format: str, shard_bytes: int
) -> None:
    pytest.importorskip("torch")
    write_synthetic(spec_of(preset, format=weights_format, shard_bytes=shard_bytes), tmp_path / "made")

    model, info = loaded(tmp_path / "made", "AutoModelForCausalLM")

    assert not any(info.values())
    assert str(model.dtype) == f"torch.{PRESETS[preset].config['torch_dtype']}"


@pytest.mark.parametrize("auto", ["AutoModel", "AutoModelForMaskedLM", "AutoModelForPreTraining"])
def test_every_class_of_bert_finds_all_of_its_weights(tmp_path: Path, auto: str) -> None:
    pytest.importorskip("torch")
    config = PRESETS["bert-base"].config | {"architectures": ["BertForPreTraining"]}
    write_synthetic(spec_of("bert-base", config_json=json.dumps(config)), tmp_path / "made")

    _, info = loaded(tmp_path / "made", auto)

    assert not info["missing_keys"]
    assert not info["mismatched_keys"]


MIXTURE = {
    "model_type": "mixtral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "vocab_size": 64,
}
ENCODER_DECODER = {
    "model_type": "t5",
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 64,
}


@pytest.mark.parametrize(
    ("config", "auto", "on_disk"),
    [
        (ENCODER_DECODER, "AutoModelForSeq2SeqLM", "encoder.block.1.layer.0.SelfAttention.q.weight"),
        (MIXTURE, "AutoModelForCausalLM", "model.layers.1.block_sparse_moe.experts.3.w1.weight"),
    ],
    ids=["t5", "mixtral"],
)
def test_an_architecture_without_a_layout_is_asked_of_transformers(
    tmp_path: Path, config: dict[str, Any], auto: str, on_disk: str
) -> None:
    pytest.importorskip("transformers")
    spec = replace(spec_of("tiny-llama"), config_json=json.dumps(config), dtype="bfloat16")

    checkpoint = written(spec, tmp_path / "made")
    model, info = loaded(tmp_path / "made", auto)

    assert on_disk in {each.name for each in checkpoint.tensors}
    assert checkpoint.parameters == model.num_parameters()
    assert not any(info.values())


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("fill", ["random", "holes"])
def test_filled_weights_are_small_finite_numbers_of_both_signs(tmp_path: Path, dtype: str, fill: Fill) -> None:
    torch = pytest.importorskip("torch")
    safe_open = pytest.importorskip("safetensors").safe_open
    write_synthetic(spec_of("tiny-llama", dtype=dtype, fill=fill), tmp_path / "made")

    with safe_open(tmp_path / "made" / "model.safetensors", "pt") as file:
        weights = torch.cat([file.get_tensor(name).double().flatten() for name in file.keys()])  # noqa: SIM118 -- not a mapping

    magnitudes = {"random": (2**-6, 2**-5), "holes": (0, 0)}[fill]
    assert magnitudes[0] <= weights.abs().min() <= weights.abs().max() <= magnitudes[1]
    assert abs(weights.mean()) < 0.001


def test_filled_bin_files_are_loaded_as_well(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    write_synthetic(spec_of("tiny-neox", format="bin", fill="random"), tmp_path / "made")

    weights = torch.load(tmp_path / "made" / "pytorch_model.bin", weights_only=True)

    assert all(2**-6 <= value.abs().min() <= value.abs().max() <= 2**-5 for value in weights.values())


TINY_DEEPSEEK = {
    "model_type": "deepseek_v3",
    "architectures": ["DeepseekV3ForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 512,
    "moe_intermediate_size": 192,
    "num_hidden_layers": 2,
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 64,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "vocab_size": 300,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "quantization_config": {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "weight_block_size": [128, 128],
    },
}
TINY_GPT_OSS = {
    "model_type": "gpt_oss",
    "architectures": ["GptOssForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_local_experts": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 300,
    "quantization_config": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
    },
}


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (
            TINY_DEEPSEEK,
            {
                "model.layers.0.mlp.down_proj.weight": ("float8_e4m3fn", (256, 512)),
                "model.layers.0.mlp.down_proj.weight_scale_inv": ("float32", (2, 4)),
                "model.layers.1.mlp.experts.3.gate_proj.weight": ("float8_e4m3fn", (192, 256)),
                "model.layers.1.mlp.experts.3.gate_proj.weight_scale_inv": ("float32", (2, 2)),
                "model.layers.1.mlp.gate.weight": ("bfloat16", (4, 256)),
                "lm_head.weight": ("bfloat16", (300, 256)),
            },
        ),
        (
            TINY_GPT_OSS,
            {
                "model.layers.0.mlp.experts.gate_up_proj_blocks": ("uint8", (4, 192, 2, 16)),
                "model.layers.0.mlp.experts.gate_up_proj_scales": ("uint8", (4, 192, 2)),
                "model.layers.0.mlp.experts.gate_up_proj_bias": ("bfloat16", (4, 192)),
                "model.layers.0.mlp.experts.down_proj_blocks": ("uint8", (4, 64, 3, 16)),
                "model.layers.0.mlp.experts.down_proj_scales": ("uint8", (4, 64, 3)),
                "model.layers.0.self_attn.q_proj.weight": ("bfloat16", (64, 64)),
            },
        ),
    ],
    ids=["fp8", "mxfp4"],
)
def test_a_quantized_config_has_the_tensors_that_are_published(
    tmp_path: Path, config: dict[str, Any], published: dict[str, Any]
) -> None:
    pytest.importorskip("transformers")
    spec = replace(spec_of("tiny-llama"), config_json=json.dumps(config), dtype="bfloat16")
    plain = {name: value for name, value in config.items() if name != "quantization_config"}

    checkpoint = written(spec, tmp_path / "made")

    found = {each.name: (each.dtype, each.shape) for each in checkpoint.tensors}
    assert published.items() <= found.items()
    assert not any("experts.gate_up_proj_scale_inv" in name for name in found)
    assert checkpoint.parameters == written(replace(spec, config_json=json.dumps(plain)), tmp_path / "plain").parameters


def test_an_infinite_number_in_a_config_is_understood(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = PRESETS["tiny-llama"].config | {"architectures": None, "rms_norm_eps": {"__float__": "Infinity"}}
    spec = replace(spec_of("tiny-llama"), config_json=json.dumps(config))

    checkpoint = written(spec, tmp_path / "made")

    assert checkpoint.parameters == 213_568
    assert json.loads((tmp_path / "made" / "config.json").read_text())["rms_norm_eps"] == {"__float__": "Infinity"}


def test_the_first_class_that_transformers_has_is_the_one_that_counts(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = PRESETS["tiny-llama"].config | {"architectures": ["OwnLlama", "LlamaForSequenceClassification"]}
    spec = replace(spec_of("tiny-llama"), config_json=json.dumps(config))

    checkpoint = written(spec, tmp_path / "made")

    assert "score.weight" in {each.name for each in checkpoint.tensors}


def test_one_interpreter_describes_every_model_until_it_is_ended(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    psutil = pytest.importorskip("psutil")
    for number in range(2):
        spec = spec_of("tiny-llama", config_json=json.dumps(MIXTURE | {"vocab_size": 64 + number}))
        write_synthetic(spec, tmp_path / str(number))
    interpreters = [each for each in psutil.Process().children() if "meta_layout.py" in " ".join(each.cmdline())]

    meta_interpreter.end()

    assert len(interpreters) == 1
    assert not interpreters[0].is_running()
