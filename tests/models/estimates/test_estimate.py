"""Predicted peaks, against what was measured once; ``bench/estimates.py`` measures again."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints import safetensors_file
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint, Shard
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.checkpoints.tensors import Tensor, tensor
from pytest_llmmem.models.estimates.conversions import Kind, convert_shard, stacking_bytes
from pytest_llmmem.models.estimates.estimate import estimate
from pytest_llmmem.models.estimates.loader_versions import LOADS
from pytest_llmmem.models.estimates.training import estimate_training
from pytest_llmmem.models.sources.presets import PRESETS
from pytest_llmmem.models.sources.synthetic import SyntheticSpec, write_synthetic

MB, MIB = 10**6, 2**20

PYTHIA = PRESETS["polyglot-ko-1.3b"].config | {"hidden_size": 1024, "intermediate_size": 4096, "vocab_size": 50304}
"""405 million parameters."""

QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
"""494 million parameters, 136 million of them in an embedding that is the head too."""


def made(folder: Path, config: dict[str, Any], *, shard_bytes: int, **changes: Any) -> Checkpoint:
    """A synthetic checkpoint; bfloat16 unless told otherwise."""
    spec = SyntheticSpec(name="made", config_json=json.dumps(config), dtype="bfloat16", shard_bytes=shard_bytes)
    write_synthetic(replace(spec, **changes), folder / "made")
    return read_checkpoint(folder / "made")


def mixture(folder: Path) -> Checkpoint:
    """402 million parameters in the names of Mixtral: 8 layers of 8 experts."""
    tensors = [
        tensor("model.embed_tokens.weight", "bfloat16", (32000, 768)),
        tensor("lm_head.weight", "bfloat16", (32000, 768)),
    ]
    for layer in range(8):
        for name, rows in (("q", 768), ("k", 256), ("v", 256), ("o", 768)):
            tensors.append(tensor(f"model.layers.{layer}.self_attn.{name}_proj.weight", "bfloat16", (rows, 768)))
        for expert in range(8):
            stem = f"model.layers.{layer}.block_sparse_moe.experts.{expert}"
            tensors += [tensor(f"{stem}.{name}.weight", "bfloat16", (2304, 768)) for name in ("w1", "w2", "w3")]
    safetensors_file.write_holes(folder / "model.safetensors", tensors)
    return read_checkpoint(folder)


def near(predicted: int | None, measured_bytes: float) -> bool:
    """Within 5 % or 30 MB."""
    assert predicted is not None
    return abs(predicted - measured_bytes) <= max(0.05 * measured_bytes, 30 * MB)


@dataclass(frozen=True)
class Measured:
    """Linux 6.18, torch 2.13 on 2 processors, glibc's mmap threshold fixed."""

    load: str
    peak: float
    resident: float
    transformers: str = "5.23.0"
    dtype: str | None = None

    @property
    def id(self) -> str:
        return f"{self.load}-{self.dtype}-{self.transformers}"


def each(rows: Sequence[Measured]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=[row.id for row in rows])


@each(
    [
        Measured("default", 7, 28),
        Measured("float32", 1984, 2981),
        Measured("float16", 996, 1992),
        Measured("bfloat16", 7, 28),
        Measured("naive", 1263, 1990),
        Measured("sharded", 1263, 1300),
        Measured("empty", 2, 25),
        Measured("auto", 7, 28),
        Measured("offload", 4, 21),
        Measured("offload", 1478, 2469, dtype="float32"),
        Measured("int8", 404, 1125),
        Measured("nf4", 268, 992),
        Measured("default", 6, 28, "5.0.0"),
        Measured("float16", 995, 1992, "5.0.0"),
        Measured("nf4", 266, 991, "5.0.0"),
        Measured("int8", 403, 1125, "5.0.0"),
        Measured("default", 1979, 2092, "4.57.6"),
        Measured("float16", 991, 1202, "4.57.6"),
        Measured("bfloat16", 2, 25, "4.57.6"),
        Measured("naive", 1263, 1990, "4.57.6"),
        Measured("sharded", 1263, 1300, "4.57.6"),
        Measured("empty", 3, 26, "4.57.6"),
        Measured("auto", 1979, 2092, "4.57.6"),
        Measured("offload", 1458, 1760, "4.57.6"),
        Measured("int8", 674, 930, "4.57.6"),
        Measured("nf4", 544, 826, "4.57.6"),
        Measured("default", 1979, 2091, "4.51.3"),
        Measured("float16", 991, 1201, "4.51.3"),
    ]
)
def test_half_a_billion_tied_parameters_need_what_was_measured(tmp_path: Path, row: Measured) -> None:
    checkpoint = made(tmp_path, QWEN, shard_bytes=300 * MB)

    predicted = checkpoint.estimate(load=row.load, dtype=row.dtype, transformers=row.transformers)

    assert near(predicted.peak_bytes, row.peak * MB)
    assert near(predicted.peak_resident_bytes, row.resident * MB)


@each(
    [
        Measured("default", 7, 16),
        Measured("float32", 1984, 2979),
        Measured("naive", 1980, 1990),
        Measured("sharded", 1289, 1299),
        Measured("empty", 992, 1002),
        Measured("default", 1980, 2091, "4.57.6"),
        Measured("empty", 990, 998, "4.57.6"),
    ]
)
def test_bin_files_need_what_was_measured(tmp_path: Path, row: Measured) -> None:
    checkpoint = made(tmp_path, QWEN, shard_bytes=300 * MB, format="bin")

    predicted = checkpoint.estimate(load=row.load, transformers=row.transformers)

    assert near(predicted.peak_bytes, row.peak * MB)
    assert near(predicted.peak_resident_bytes, row.resident * MB)


@each(
    [
        Measured("float16", 778, 1557),
        Measured("float32", 1551, 2330),
        Measured("default", 1547, 1652, "4.57.6"),
        Measured("float16", 774, 879, "4.57.6"),
    ]
)
def test_shards_of_unequal_size_need_what_was_measured(tmp_path: Path, row: Measured) -> None:
    checkpoint = made(tmp_path, PYTHIA, shard_bytes=200 * MB)

    predicted = checkpoint.estimate(load=row.load, transformers=row.transformers)

    assert near(predicted.peak_bytes, row.peak * MIB)
    assert near(predicted.peak_resident_bytes, row.resident * MIB)


@each(
    [
        Measured("bfloat16", 2671, 5343),
        Measured("naive", 2669, 5217),
        Measured("sharded", 2672, 3672),
        Measured("int8", 1336, 3762),
        Measured("nf4", 913, 3342),
    ]
)
def test_the_1_3b_preset_needs_what_was_measured(tmp_path: Path, row: Measured) -> None:
    checkpoint = made(tmp_path, PRESETS["polyglot-ko-1.3b"].config, shard_bytes=10**9, dtype="float16")

    predicted = checkpoint.estimate(load=row.load, transformers=row.transformers)

    assert near(predicted.peak_bytes, row.peak * MB)
    assert near(predicted.peak_resident_bytes, row.resident * MB)


@each(
    [
        Measured("default", 714, 1378),
        Measured("float32", 1726, 2539),
        Measured("float16", 866, 1679),
        Measured("int8", 725, 1417),
        Measured("nf4", 720, 1417),
    ]
)
def test_stacked_experts_need_what_was_measured(tmp_path: Path, row: Measured) -> None:
    predicted = mixture(tmp_path).estimate(load=row.load, transformers=row.transformers)

    assert near(predicted.peak_bytes, row.peak * MB)
    assert near(predicted.peak_resident_bytes, row.resident * MB)


@pytest.mark.parametrize(
    ("load", "transformers", "forward"),
    [
        ("default", "5.23.0", 1012),
        ("float32", "5.23.0", 2025),
        ("int8", "5.23.0", 1385),
        ("nf4", "5.23.0", 1228),
        ("offload", "5.23.0", 744),
        ("nf4", "4.57.6", 525),
    ],
)
def test_the_first_forward_pays_for_what_was_mapped(tmp_path: Path, load: str, transformers: str, forward: int) -> None:
    checkpoint = made(tmp_path, QWEN, shard_bytes=300 * MB)

    assert near(checkpoint.estimate(load=load, transformers=transformers).forward_resident_bytes, forward * MB)


def test_4_bits_have_no_effect_on_experts_that_were_stacked(tmp_path: Path) -> None:
    checkpoint = mixture(tmp_path)

    new, old = (checkpoint.estimate(load="nf4", transformers=version).weights_bytes for version in ("5.23.0", "4.57.6"))

    assert new > 0.95 * checkpoint.weights_bytes
    assert old < 0.4 * checkpoint.weights_bytes


@pytest.mark.parametrize("load", ["naive", "sharded", "empty", "offload"])
def test_what_fails_or_cannot_be_followed_is_not_predicted(tmp_path: Path, load: str) -> None:
    predicted = mixture(tmp_path).estimate(load=load, transformers="5.23.0")

    assert (predicted.peak_bytes, predicted.peak_resident_bytes, predicted.forward_resident_bytes) == (None, None, None)


def test_versions_before_the_known_ones_are_not_predicted(tmp_path: Path) -> None:
    checkpoint = made(tmp_path, PRESETS["tiny-llama"].config, shard_bytes=10**9)

    assert [
        checkpoint.estimate(transformers=version).peak_bytes is None
        for version in ("4.40.1", "4", "4.50.3", "4.51.0", "5", "5.0.0rc1", "6.0")
    ] == [True, True, True, False, False, False, False]


def test_windows_reads_every_tensor_into_memory(tmp_path: Path) -> None:
    checkpoint = made(tmp_path, PRESETS["bert-base"].config, shard_bytes=10**9, dtype="float16")

    on_windows = estimate(checkpoint, transformers="5.23.0", platform="win32")
    mapped = estimate(checkpoint, transformers="5.23.0", platform="linux")

    # measured under Wine 10 with transformers 5.23.0 on Windows: 238 MB for 220 MB of weights
    assert near(on_windows.peak_bytes, 238e6)
    assert mapped.peak_bytes is not None
    assert mapped.peak_bytes < 0.1 * checkpoint.weights_bytes


@pytest.mark.parametrize(("load", "version"), [("default", "5.16.0"), ("sharded", "5.23.0"), ("offload", "5.23.0")])
def test_what_a_map_commits_on_windows_is_not_predicted(tmp_path: Path, load: str, version: str) -> None:
    checkpoint = made(tmp_path, PRESETS["tiny-llama"].config, shard_bytes=10**9)

    assert estimate(checkpoint, load=load, transformers=version, platform="win32").peak_bytes is None


def test_a_checkpoint_that_is_quantised_already_is_not_predicted(tmp_path: Path) -> None:
    checkpoint = made(tmp_path, PRESETS["tiny-llama"].config, shard_bytes=10**9)
    config = checkpoint.path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "fp8"}}))

    assert checkpoint.estimate(load="default", transformers="5.23.0").peak_bytes is None


def test_the_dtype_is_the_configs_on_5_and_float32_on_4(tmp_path: Path) -> None:
    checkpoint = made(tmp_path, PRESETS["tiny-llama"].config, shard_bytes=10**9, dtype="float16")

    assert [checkpoint.estimate(transformers=version).dtype for version in ("5.23.0", "4.57.6")] == [
        "float16",
        "float32",
    ]
    assert checkpoint.estimate(load="sharded", transformers="4.57.6").dtype == "float16"
    assert checkpoint.estimate(load="int8", transformers="4.57.6", dtype="bfloat16").dtype == "bfloat16"


@pytest.mark.parametrize("said", [{}, {"torch_dtype": None}, {"torch_dtype": "auto"}])
def test_a_config_that_names_no_dtype_leaves_the_weights_as_they_are(tmp_path: Path, said: dict[str, Any]) -> None:
    checkpoint = made(tmp_path, PRESETS["tiny-llama"].config, shard_bytes=10**9)
    config = {name: value for name, value in PRESETS["tiny-llama"].config.items() if name != "torch_dtype"}
    (checkpoint.path / "config.json").write_text(json.dumps(config | said))

    assert checkpoint.estimate(transformers="5.23.0").dtype == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"load": "magic"}, "'magic' is not a load that can be estimated: write one of default, sharded, .*, nf4, "),
        (
            {"dtype": "half"},
            "'half' is not a dtype to load in: write one of float64, float32, float16, bfloat16; int8 and",
        ),
        ({"dtype": "int8"}, "'int8' is not a dtype to load in"),
        ({"transformers": "newest"}, "'newest' is not a version of transformers: write one like 5.23.0"),
    ],
)
def test_an_unknown_name_is_answered_with_those_that_are(
    tmp_path: Path, arguments: dict[str, str], complaint: str
) -> None:
    checkpoint = made(tmp_path, PRESETS["tiny-llama"].config, shard_bytes=10**9)

    with pytest.raises(ValueError, match=complaint):
        checkpoint.estimate(**arguments)


def test_every_strategy_but_those_of_ranks_and_that_of_adapters_can_be_estimated() -> None:
    from pytest_llmmem.models.loading.strategies import STRATEGIES

    others = {name for name, each in STRATEGIES.items() if each.needs_ranks or each.merges_adapter} | {"llama_cpp"}
    assert set(LOADS) == set(STRATEGIES) - others


@pytest.mark.parametrize(("dtype", "thirds"), [("bfloat16", 1), ("float16", 2), ("float32", 4)])
def test_experts_are_stacked_beside_a_copy_of_gate_and_up(tmp_path: Path, dtype: str, thirds: int) -> None:
    tensors = mixture(tmp_path).tensors

    stacking = stacking_bytes(
        [convert_shard(Counter(map(Kind.of, tensors)), dtype, quantisation=None, stacks_experts=True)]
    )

    one_layer = 8 * 3 * 2304 * 768 * 2
    assert stacking == thirds * one_layer // 3


TENSORS = st.builds(
    lambda number, dtype, shape: tensor(f"model.layers.{number}.up.weight", dtype, shape),
    st.integers(0, 5),
    st.sampled_from(["float32", "float16", "bfloat16"]),
    st.tuples(st.integers(1, 64), st.integers(1, 64)),
)


@given(
    shards=st.lists(
        st.lists(TENSORS, min_size=1, max_size=4, unique_by=lambda each: each.name), min_size=1, max_size=4
    ),
    load=st.sampled_from(LOADS),
    version=st.sampled_from(["5.23.0", "4.57.6"]),
)
def test_files_only_add_to_what_cannot_be_taken_back(
    shards: list[list[Tensor]], load: str, version: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    checkpoint = _in_memory(shards, tmp_path_factory.getbasetemp())

    predicted = estimate(checkpoint, load=load, dtype="bfloat16", transformers=version)

    assert predicted.peak_bytes is not None
    assert predicted.peak_resident_bytes is not None
    assert 0 < predicted.peak_bytes <= predicted.peak_resident_bytes
    assert load in {"int8", "nf4"} or predicted.weights_bytes == sum(
        2 * each.elements for shard in shards for each in shard
    )


def _in_memory(shards: list[list[Tensor]], folder: Path) -> Checkpoint:
    """A checkpoint of these tensors that is nowhere on disk."""
    return Checkpoint(
        source="made",
        path=folder,
        model_type=None,
        format="safetensors",
        shards=tuple(
            Shard(path=folder / str(number), file_bytes=0, tensors=tuple(shard), truncated=False)
            for number, shard in enumerate(shards)
        ),
        index=None,
        missing=(),
        truncated=(),
        duplicates=(),
        formats=("safetensors",),
    )


def test_training_takes_16_bytes_for_each_parameter_in_float32_and_in_mixed_precision() -> None:
    assert estimate_training(10, "float32").total_bytes == 160
    assert estimate_training(10, "mixed").total_bytes == 160
    assert estimate_training(10, "bfloat16").total_bytes == 80


def test_more_kinds_of_tensors_than_any_model_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = made(tmp_path, PRESETS["tiny-llama"].config, shard_bytes=10**9)
    monkeypatch.setattr("pytest_llmmem.models.estimates.estimate.MAX_KINDS", 3)

    with pytest.raises(CheckpointError, match="has tensors of more than 3 kinds: no model that is known needs so much"):
        checkpoint.estimate()


def test_an_estimate_imports_no_library(tmp_path: Path) -> None:
    checkpoint = made(tmp_path, PRESETS["tiny-llama"].config, shard_bytes=10**9)
    program = f"""
import sys
from pathlib import Path
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
read_checkpoint(Path({str(checkpoint.path)!r})).estimate(load="nf4")
print(*sys.modules)
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert {"torch", "transformers", "accelerate", "safetensors", "pytest"}.isdisjoint(done.stdout.split())


def test_experts_whose_down_projections_come_first_need_what_was_measured(tmp_path: Path) -> None:
    tensors = [tensor(name, "bfloat16", (50304, 768)) for name in ("model.embed_tokens.weight", "lm_head.weight")]
    for layer in range(3):
        attention = f"model.layers.{layer}.self_attn"
        tensors += [tensor(f"{attention}.{name}_proj.weight", "bfloat16", (768, 768)) for name in "qkvo"]
        for expert in range(64):
            stem = f"model.layers.{layer}.mlp.experts.{expert}"
            tensors.append(tensor(f"{stem}.down_proj.weight", "bfloat16", (768, 512)))
            tensors += [tensor(f"{stem}.{name}_proj.weight", "bfloat16", (512, 768)) for name in ("gate", "up")]
    safetensors_file.write_holes(tmp_path / "model.safetensors", tensors)

    predicted = read_checkpoint(tmp_path).estimate(transformers="5.23.0")

    assert near(predicted.peak_bytes, 570 * MB)
    assert near(predicted.peak_resident_bytes, 1021 * MB)
