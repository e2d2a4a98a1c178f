"""PEFT adapters as sources: the base that they name, or that the user does, and what is put on it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_llmmem.core.errors import CheckpointError, SourceError
from pytest_llmmem.models.checkpoints.safetensors_file import write_holes
from pytest_llmmem.models.checkpoints.tensors import tensor
from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.sources.hub import HubModel
from pytest_llmmem.models.sources.source import open_checkpoint, parse_source
from tests.conftest import needs
from tests.models.loading.sample_loads import LLAMA, load, written


def adapter(folder: Path, base: str | None) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))
    write_holes(folder / "adapter_model.safetensors", [tensor("lora_A.weight", "float32", (4, 64))])
    return folder


def test_the_base_is_the_one_that_the_adapter_names(tmp_path: Path) -> None:
    base = written(tmp_path, LLAMA).path
    adapter(tmp_path / "mine", str(base))

    checkpoint = open_checkpoint(parse_source("./mine", base=tmp_path), cache=tmp_path)

    assert (checkpoint.source, checkpoint.path, checkpoint.kind) == ("./mine", base, "model")
    assert checkpoint.adapter is not None
    assert checkpoint.adapter.weights_bytes == 4 * 4 * 64


def test_a_base_that_is_written_wins(tmp_path: Path) -> None:
    adapter(tmp_path / "mine", "org/other")

    written_one = parse_source("./mine?base=org/name@main", base=tmp_path)

    assert written_one.target == HubModel(repo="org/name", revision="main")
    assert (written_one.label, written_one.adapter) == ("mine", tmp_path / "mine")
    assert parse_source("./mine", base=tmp_path).target == HubModel(repo="org/other", revision=None)


def test_an_adapter_without_a_base_says_how_to_name_one(tmp_path: Path) -> None:
    adapter(tmp_path / "mine", None)

    with pytest.raises(SourceError, match=r"names no base model \(None\): write it, as in './mine\?base=org/name'"):
        parse_source("./mine", base=tmp_path)


def test_a_merge_without_an_adapter_is_said(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, LLAMA)

    with pytest.raises(CheckpointError, match="'merge' is for an adapter, and this is a model"):
        load(LoadRequest(checkpoint=checkpoint, offload_folder=tmp_path), "merge")


@needs("peft", "torch", "transformers")
@pytest.mark.filterwarnings("ignore")
def test_an_adapter_is_put_on_its_base_and_merged(tmp_path: Path) -> None:
    base = written(tmp_path, LLAMA).path
    program = f"""
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

model = LlamaForCausalLM.from_pretrained({str(base)!r})
get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained({str(tmp_path / "mine")!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    checkpoint = open_checkpoint(parse_source("./mine", base=tmp_path), cache=tmp_path)
    assert checkpoint.adapter is not None
    (tmp_path / "offload").mkdir()

    on_it = load(LoadRequest(checkpoint=checkpoint, offload_folder=tmp_path / "offload"))
    merged = load(LoadRequest(checkpoint=checkpoint, offload_folder=tmp_path / "offload"), "merge")

    assert type(on_it.model).__name__ == "PeftModel"
    assert on_it.nbytes - merged.nbytes == checkpoint.adapter.weights_bytes
    assert on_it.promised_nbytes == checkpoint.weights_bytes + checkpoint.adapter.weights_bytes
    assert type(merged.model).__name__ == "LlamaForCausalLM"
    assert merged.call.endswith(".merge_and_unload()")
