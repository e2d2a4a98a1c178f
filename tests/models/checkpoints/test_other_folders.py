"""Folders whose weights do not have the names that transformers gives them."""

import json
from pathlib import Path

import pytest

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.findings import findings
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.checkpoints.safetensors_file import write_holes
from pytest_llmmem.models.checkpoints.tensors import tensor

WEIGHT = tensor("w", "float32", (10, 10))


def weights(path: Path, *tensors: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_holes(path, tensors or (WEIGHT,))


def test_one_file_of_any_name_is_the_checkpoint(tmp_path: Path) -> None:
    weights(tmp_path / "weights.safetensors")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "optimizer.pt").write_text("what a training left")

    checkpoint = read_checkpoint(tmp_path)

    assert (checkpoint.kind, checkpoint.weights_bytes, checkpoint.parameters) == ("file", 400, 100)


def test_files_that_belong_together_by_their_numbers_are_one_checkpoint(tmp_path: Path) -> None:
    for number in range(2):
        weights(tmp_path / f"consolidated.0{number}.safetensors", tensor(f"w{number}", "float16", (10,)))

    checkpoint = read_checkpoint(tmp_path)

    assert (len(checkpoint.shards), checkpoint.weights_bytes, checkpoint.largest_shard_bytes) == (2, 40, 20)


def test_several_files_are_answered_with_one_to_name(tmp_path: Path) -> None:
    weights(tmp_path / "a.safetensors")
    weights(tmp_path / "b.safetensors")

    with pytest.raises(CheckpointError, match=r"holds a\.safetensors, b\.safetensors: name the file .*/a\.safetensors"):
        read_checkpoint(tmp_path)


def test_a_pipeline_s_components_are_counted_together_and_each(tmp_path: Path) -> None:
    parts = {
        "unet": ["diffusers", "UNet2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "S"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "ThePipeline"} | parts))
    weights(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").write_text("the same once more")
    weights(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", tensor("w", "float16", (10,)))
    (tmp_path / "scheduler").mkdir()

    checkpoint = read_checkpoint(tmp_path)

    assert (checkpoint.kind, checkpoint.model_type) == ("diffusers", "ThePipeline")
    assert checkpoint.components == {"unet": 400, "vae": 20}
    assert [each.name for each in checkpoint.tensors] == ["unet.w", "vae.w"]
    assert findings(checkpoint) == ()


def test_a_sentence_transformer_s_modules_are_its_components(tmp_path: Path) -> None:
    modules = [{"path": "", "type": "a.b.Transformer"}, {"path": "1_Pooling"}, {"path": "2_Dense"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "config_sentence_transformers.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    weights(tmp_path / "model.safetensors")
    weights(tmp_path / "2_Dense" / "model.safetensors", tensor("w", "float32", (5,)))

    assert read_checkpoint(tmp_path).components == {"Transformer": 400, "2_Dense": 20}


def test_a_sentence_transformer_with_weights_in_one_place_is_a_model_of_transformers(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "", "type": "a.b.Transformer"}, {"path": "1_Pooling"}]))
    (tmp_path / "config_sentence_transformers.json").write_text("{}")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    weights(tmp_path / "model.safetensors")

    checkpoint = read_checkpoint(tmp_path)

    assert (checkpoint.kind, checkpoint.model_type, checkpoint.components) == ("model", "bert", {})


@pytest.mark.parametrize(
    "name", ["consolidated.safetensors", "model.fp16.safetensors", "original/consolidated.00.pth", "tf_model.h5"]
)
def test_a_second_layout_beside_a_checkpoint_is_a_duplicate(tmp_path: Path, name: str) -> None:
    weights(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    weights(tmp_path / name)

    checkpoint = read_checkpoint(tmp_path)

    assert checkpoint.duplicates == (name,)
    assert [finding.id for finding in findings(checkpoint)] == ["duplicates"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            [".metadata", "__0_0.distcp"],
            r"distributed checkpoint of torch \(DCP\): make one file of it: python -m torch",
        ),
        (
            ["refs/main", "snapshots/abc/model.safetensors"],
            "folder of the Hub's cache: name the snapshot in it, .*/abc",
        ),
        (
            ["checkpoint-5/model.safetensors", "checkpoint-10/model.safetensors", "trainer_state.json"],
            "the output of a training with checkpoint-10, checkpoint-5: name that folder, .*/checkpoint-10",
        ),
        (["original/consolidated.00.pth", "params.json"], "has its weights in original: name that folder, .*/original"),
        (["optimizer.pt", "training_args.bin"], "holds optimizer.pt, training_args.bin, and no file of weights"),
    ],
)
def test_what_a_folder_is_and_what_to_name_is_said(tmp_path: Path, files: list[str], said: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")

    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(tmp_path)
