"""What a folder is said to hold."""

import gc
import json
from pathlib import Path

import pytest

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints import safetensors_file, torch_file
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.checkpoints.tensors import tensor

BLOCK_0 = (tensor("model.layers.0.up.weight", "float16", (8, 4)), tensor("model.layers.0.norm.weight", "float32", (4,)))
BLOCK_1 = (tensor("model.layers.1.up.weight", "float16", (8, 4)), tensor("model.layers.1.norm.weight", "float32", (4,)))
EMBEDDING = tensor("model.embed.weight", "float16", (50, 4))


def single(folder: Path) -> Path:
    (folder / "config.json").write_text('{"model_type": "made-up"}')
    safetensors_file.write_holes(folder / "model.safetensors", (EMBEDDING, *BLOCK_0, *BLOCK_1))
    return folder


def sharded(folder: Path) -> Path:
    shards = {"model-00001-of-00002.safetensors": (EMBEDDING, *BLOCK_0), "model-00002-of-00002.safetensors": BLOCK_1}
    for name, tensors in shards.items():
        safetensors_file.write_holes(folder / name, tensors)
    weight_map = {each.name: name for name, tensors in shards.items() for each in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def facts(checkpoint: Checkpoint) -> tuple[object, ...]:
    return checkpoint.parameters, checkpoint.weights_bytes, checkpoint.largest_layer_bytes, checkpoint.bytes_by_dtype


def test_a_single_file_is_one_shard_without_an_index(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(single(tmp_path), source="./mine")

    assert (checkpoint.source, checkpoint.model_type, checkpoint.format) == ("./mine", "made-up", "safetensors")
    assert (len(checkpoint.shards), checkpoint.index) == (1, None)
    assert (checkpoint.missing, checkpoint.truncated, checkpoint.duplicates) == ((), (), ())


def test_its_repr_is_one_line_with_the_numbers(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(sharded(tmp_path), source="./mine")

    assert repr(checkpoint) == "<Checkpoint ./mine: model, 272 parameters, float16, 560 B in 2 files>"
    assert repr(checkpoint.shards[1]) == f"<Shard model-00002-of-00002.safetensors: {len(BLOCK_1)} tensors, 80 B>"


def test_sizes_are_told_from_the_headers(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(single(tmp_path))

    assert checkpoint.parameters == 200 + 2 * 36
    assert checkpoint.weights_bytes == checkpoint.largest_shard_bytes == 400 + 2 * 80
    assert checkpoint.bytes_by_dtype == {"float16": 400 + 2 * 64, "float32": 2 * 16}
    assert checkpoint.dtype == "float16"
    assert checkpoint.nbytes_in("float32") == 4 * checkpoint.parameters


def test_the_largest_layer_is_a_whole_block_or_a_larger_module_beside_the_blocks(tmp_path: Path) -> None:
    with_embedding, without = tmp_path / "with", tmp_path / "without"
    for folder, tensors in ((with_embedding, (EMBEDDING, *BLOCK_0)), (without, (*BLOCK_0, *BLOCK_1))):
        folder.mkdir()
        safetensors_file.write_holes(folder / "model.safetensors", tensors)

    assert read_checkpoint(with_embedding).largest_layer_bytes == 400
    assert read_checkpoint(without).largest_layer_bytes == 64 + 16


def test_shards_are_found_through_the_index(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(sharded(tmp_path))

    assert [shard.path.name for shard in checkpoint.shards] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert checkpoint.index == tmp_path / "model.safetensors.index.json"
    assert checkpoint.largest_shard_bytes == 400 + 80
    assert checkpoint.weights_bytes == 400 + 2 * 80


def test_a_missing_shard_is_a_fact(tmp_path: Path) -> None:
    (sharded(tmp_path) / "model-00002-of-00002.safetensors").unlink()

    checkpoint = read_checkpoint(tmp_path)

    assert checkpoint.missing == ("model-00002-of-00002.safetensors",)
    assert checkpoint.parameters == 200 + 36


def test_a_truncated_shard_is_a_fact(tmp_path: Path) -> None:
    path = sharded(tmp_path) / "model-00001-of-00002.safetensors"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)

    checkpoint = read_checkpoint(tmp_path)

    assert checkpoint.truncated == ("model-00001-of-00002.safetensors",)
    assert checkpoint.weights_bytes == 400 + 2 * 80


def test_a_truncated_bin_file_is_a_fact_though_its_tensors_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch_file.write_holes(path, BLOCK_0)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)

    checkpoint = read_checkpoint(tmp_path)

    assert (checkpoint.truncated, checkpoint.parameters, checkpoint.dtype) == (("pytorch_model.bin",), 0, None)


def test_the_same_weights_in_both_formats_are_used_once_and_the_others_named(tmp_path: Path) -> None:
    torch_file.write_holes(single(tmp_path) / "pytorch_model.bin", BLOCK_0)
    (tmp_path / "training_args.bin").write_bytes(b"")

    checkpoint = read_checkpoint(tmp_path)

    assert (checkpoint.format, checkpoint.formats) == ("safetensors", ("safetensors", "bin"))
    assert checkpoint.duplicates == ("pytorch_model.bin",)


def test_both_formats_of_the_same_tensors_have_the_same_facts(tmp_path: Path) -> None:
    alone = tmp_path / "한국어"
    alone.mkdir()
    torch_file.write_holes(alone / "pytorch_model.bin", (EMBEDDING, *BLOCK_0, *BLOCK_1))

    assert facts(read_checkpoint(alone)) == facts(read_checkpoint(single(tmp_path)))


def test_weights_without_a_config_have_no_model_type(tmp_path: Path) -> None:
    (single(tmp_path) / "config.json").unlink()

    assert read_checkpoint(tmp_path).model_type is None


def test_a_folder_without_weights_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is empty: a checkpoint is a folder"):
        read_checkpoint(tmp_path)

    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds tokenizer\.json, and no file of weights"):
        read_checkpoint(tmp_path)


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there"):
        read_checkpoint(tmp_path / "not-there")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, r"has shards .* but no model\.safetensors\.index\.json"),
        ("{", "is not JSON"),
        ("[]", "list"),
        ("{}", "no 'weight_map'"),
    ],
    ids=["missing", "broken", "list", "empty"],
)
def test_shards_without_a_usable_index_are_refused(tmp_path: Path, content: str | None, why: str) -> None:
    index = sharded(tmp_path) / "model.safetensors.index.json"
    index.unlink()
    if content is not None:
        index.write_text(content)

    with pytest.raises(CheckpointError, match=why):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("bound", "what"), [("MAX_TENSORS", "more than 4 tensors"), ("MAX_HEADERS_BYTES", "headers of more than 4 bytes")]
)
def test_all_shards_together_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, what: str
) -> None:
    monkeypatch.setattr(f"pytest_llmmem.models.checkpoints.reader.{bound}", 4)

    with pytest.raises(CheckpointError, match=f"has {what}: no model that is known needs so much"):
        read_checkpoint(sharded(tmp_path))


def test_a_folder_that_is_too_full_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_llmmem.models.checkpoints.checkpoint_folder.MAX_FILES", 1)

    with pytest.raises(CheckpointError, match="has more than 1 files"):
        read_checkpoint(single(tmp_path))


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was_before(tmp_path: Path, enabled: bool) -> None:
    was_enabled = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        read_checkpoint(single(tmp_path))
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / "not-there")
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


@pytest.mark.parametrize("shard", ["1GB", "100kB"])
def test_a_model_that_transformers_saved_is_read_as_transformers_counts_it(tmp_path: Path, shard: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=512
    )
    model = transformers.LlamaForCausalLM(config).half()
    model.save_pretrained(tmp_path, max_shard_size=shard)

    checkpoint = read_checkpoint(tmp_path)

    assert checkpoint.parameters == model.num_parameters()
    assert checkpoint.weights_bytes == 2 * model.num_parameters()
    assert (checkpoint.model_type, checkpoint.dtype) == ("llama", "float16")
    assert (checkpoint.missing, checkpoint.truncated) == ((), ())
    assert (len(checkpoint.shards) > 1) is (shard == "100kB")
