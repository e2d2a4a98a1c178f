"""The class and the arguments of a load, and what is wrong with a checkpoint that cannot be loaded."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.loading.request import LoadRequest, installed
from tests.conftest import needs
from tests.models.loading.sample_loads import LLAMA, load, outputs, request, written

pytestmark = needs("torch", "transformers")


def with_config(folder: Path, **changes: Any) -> LoadRequest:
    """A request for a tiny Llama whose ``config.json`` says something else."""
    checkpoint = written(folder, LLAMA)
    path = checkpoint.path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return request(checkpoint, folder)


def test_without_architectures_it_is_the_base_model(tmp_path: Path) -> None:
    asked = with_config(tmp_path, architectures=None)

    assert asked.model_class.__name__ == "AutoModel"


@pytest.mark.parametrize("name", ["default", "naive"])
def test_a_checkpoint_without_a_config_is_told_so(tmp_path: Path, name: str) -> None:
    checkpoint = written(tmp_path, LLAMA)
    (checkpoint.path / "config.json").unlink()

    with pytest.raises(CheckpointError, match=r"^--llm-model=synthetic:made: config\.json is not there"):
        load(request(checkpoint, tmp_path), name)


def test_an_architecture_that_is_not_there_is_named(tmp_path: Path) -> None:
    asked = with_config(tmp_path, architectures=["MadeUpForCausalLM"])

    with pytest.raises(
        CheckpointError,
        match=r"--llm-model=synthetic:made: config\.json names MadeUpForCausalLM, and transformers \d.* has no such class",
    ):
        load(asked)


@pytest.mark.parametrize("name", ["pipeline", "logging", "__version__", "__dict__"])
def test_what_is_no_class_is_not_taken_for_one(tmp_path: Path, name: str) -> None:
    asked = with_config(tmp_path, architectures=[name])

    with pytest.raises(CheckpointError, match=f"config.json names {name}, and transformers .* has no such class"):
        load(asked)


@pytest.mark.parametrize(
    "changes", [{"architectures": 7}, {"architectures": [7]}, {"auto_map": 7}, {"auto_map": {"AutoModel": 7}}]
)
def test_a_config_that_names_no_class_in_the_way_of_configs_names_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    asked = with_config(tmp_path, **({"architectures": None} | changes))

    assert asked.model_class.__name__ == "AutoModel"


@pytest.mark.parametrize("name", ["default", "naive", "sharded", "empty"])
def test_weights_outside_of_the_folder_are_not_loaded(tmp_path: Path, name: str) -> None:
    checkpoint = written(tmp_path, LLAMA)
    assert checkpoint.index is not None
    index = json.loads(checkpoint.index.read_text())
    (tmp_path / "outside.safetensors").write_bytes(checkpoint.shards[0].path.read_bytes())
    first = checkpoint.shards[0].path.name
    moved = {
        tensor: "../outside.safetensors" if file == first else file for tensor, file in index["weight_map"].items()
    }
    checkpoint.index.write_text(json.dumps(index | {"weight_map": moved}))

    with pytest.raises(
        CheckpointError, match=r"the index names \.\./outside\.safetensors, which is no file of the checkpoint"
    ):
        load(request(read_checkpoint(checkpoint.path, source="synthetic:made"), tmp_path), name)


def test_without_transformers_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(written(tmp_path, LLAMA), tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)

    with pytest.raises(CheckpointError, match=r"loading needs transformers .*: pip install 'pytest-llmmem\[hf\]'"):
        load(asked)


OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def with_own_code(folder: Path, **options: Any) -> LoadRequest:
    """A request for a checkpoint that brings the code of its class."""
    asked = with_config(
        folder,
        model_type="own",
        architectures=["OwnForCausalLM"],
        auto_map={
            "AutoConfig": "own.OwnConfig",
            "AutoModel": "own.Other",
            "AutoModelForCausalLM": "own.OwnForCausalLM",
        },
    )
    (asked.checkpoint.path / "own.py").write_text(OWN_CODE)
    return request(asked.checkpoint, folder, **options)


def test_a_checkpoint_s_own_code_is_not_run_unasked(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"is code that comes with the checkpoint: read it, and pass --llm-trust-remote"
    ):
        load(with_own_code(tmp_path))


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # transformers 4.40 imports so
@pytest.mark.parametrize("name", ["default", "naive", "sharded", "empty", "auto"])
def test_code_that_is_trusted_runs(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (tmp_path / "plain").mkdir()
    plain = outputs(load(request(written(tmp_path / "plain", LLAMA), tmp_path, dtype="float32")).model)

    loaded = load(with_own_code(tmp_path, trust_remote_code=True, dtype="float32"), name)

    assert type(loaded.model).__name__ == "OwnForCausalLM"
    assert torch.equal(outputs(loaded.model), plain)


def test_trust_is_not_passed_to_classes_that_need_none(tmp_path: Path) -> None:
    asked = request(written(tmp_path, LLAMA), tmp_path, trust_remote_code=True)

    assert asked.written() == f"LlamaForCausalLM.from_pretrained({str(asked.checkpoint.path)!r})"


def test_the_dtype_is_written_as_the_installed_version_takes_it(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, LLAMA)
    argument = "dtype" if installed("transformers") >= (4, 56) else "torch_dtype"

    calls = {request(checkpoint, tmp_path, **{key: "float16"}).written() for key in ("dtype", "torch_dtype")}

    assert calls == {f"LlamaForCausalLM.from_pretrained({str(checkpoint.path)!r}, {argument}=torch.float16)"}


@pytest.mark.parametrize(
    ("options", "bits"),
    [({"dtype": "float32"}, 32), ({"torch_dtype": "bfloat16"}, 16), ({"dtype": "auto"}, 16), ({}, None)],
)
def test_the_size_that_a_load_will_have_is_known_before(
    tmp_path: Path, options: dict[str, Any], bits: int | None
) -> None:
    checkpoint = written(tmp_path, LLAMA, dtype="float16")
    asked = request(checkpoint, tmp_path, **options)

    loaded = load(asked)

    assert asked.loaded_bytes == sum(weight.nbytes for weight in loaded.model.parameters())
    assert bits is None or asked.loaded_bytes == checkpoint.parameters * bits // 8


def test_a_version_is_told_without_an_import() -> None:
    assert installed("pytest") >= (8, 2)
    assert installed("no-such-library") == ()


@pytest.mark.skipif(installed("transformers") < (5,), reason="the error of older versions names the weights")
def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    asked = with_config(tmp_path, intermediate_size=LLAMA["intermediate_size"] + 8)

    with pytest.raises(
        CheckpointError, match=r"^--llm-model=synthetic:made: model\.layers\.0\.mlp\.\w+\.weight is \("
    ) as error:
        load(asked)

    assert "by config.json, and 5 more: fetch the config.json of these weights" in str(error.value)
