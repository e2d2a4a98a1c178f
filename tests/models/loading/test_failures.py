"""What is not installed, and plans that do not work: raised by the real libraries, and recognized."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.diagnosis import diagnose
from tests.models.loading.failing import (
    MARKS,
    change_config,
    child,
    device_map,
    diagnosed,
    empty_model,
    filled_model,
    id_of,
    load,
    packages_without,
    transformers_major,
)

pytestmark = MARKS


def test_accelerate_is_missing(tmp_path: Path, tiny_folder: Path) -> None:
    program = """
import transformers
load = transformers.AutoModelForCausalLM.from_pretrained
attempt(lambda: load(sys.argv[1], device_map="auto"))
attempt(lambda: load(sys.argv[1], quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True)))
attempt(lambda: __import__("accelerate"))
"""
    found = child(program, tiny_folder, path=packages_without(tmp_path, "accelerate")).symptoms

    by_map, by_quantizer, by_import = [diagnose(facts) for facts in found]
    assert by_map is not None
    assert by_map.id == "accelerate-missing"
    assert "pip install -U accelerate" in by_map.next[0]
    assert by_import is not None
    assert by_import.id == "accelerate-missing"
    # transformers 4 names both packages in one message
    assert by_quantizer is not None
    assert by_quantizer.id in {"accelerate-missing", "bitsandbytes-missing"}


def test_a_quantizer_is_missing(tmp_path: Path, tiny_folder: Path) -> None:
    program = """
import transformers
load = transformers.AutoModelForCausalLM.from_pretrained
attempt(lambda: load(sys.argv[1], quantization_config=transformers.BitsAndBytesConfig(load_in_4bit=True)))
attempt(lambda: load(sys.argv[1], quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True)))
attempt(lambda: load(sys.argv[1], quantization_config=transformers.QuantoConfig(weights="int8")))
attempt(lambda: load(sys.argv[1], quantization_config=transformers.TorchAoConfig("int8_weight_only")))
"""
    packages = packages_without(tmp_path, "bitsandbytes", "torchao", "optimum", "quanto")

    four, eight, quanto, *torchao = [diagnose(facts) for facts in child(program, tiny_folder, path=packages).symptoms]

    assert four is not None
    assert eight is not None
    assert four.id == eight.id == "bitsandbytes-missing"
    assert quanto is not None
    assert quanto.id == "quantizer-missing"
    assert "quanto" in quanto.next[0]
    assert [each and each.next[0] for each in torchao] == ["Install it: pip install torchao."]


@pytest.mark.parametrize("option", ["load_in_8bit", "load_in_4bit"])
def test_load_in_bits_was_taken_out(tiny_folder: Path, option: str) -> None:
    if transformers_major() < 5:
        pytest.skip("transformers 4 takes it")

    found = diagnosed(lambda: load(tiny_folder, **{option: True}))

    assert found is not None
    assert found.id == "load-in-bits-removed"
    assert f"BitsAndBytesConfig({option}=True)" in found.next[0]


def test_a_field_of_the_quantization_config_is_passed_by_itself(tiny_folder: Path) -> None:
    assert id_of(lambda: load(tiny_folder, llm_int8_enable_fp32_cpu_offload=True)) == "cpu-offload-argument"


def test_torch_has_no_gpu(tiny_folder: Path) -> None:
    torch = no_gpu()

    def deserialize() -> None:
        with pytest.MonkeyPatch.context() as patch:
            # a checkpoint that was saved from a GPU says so in each storage
            patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
            torch.save({"weight": torch.ones(1)}, tiny_folder / "saved.pt")
        torch.load(tiny_folder / "saved.pt")

    assert id_of(lambda: load(tiny_folder, device_map="cuda")) == "torch-without-cuda"
    assert id_of(lambda: load(tiny_folder, device_map={"": 0})) == "torch-without-cuda"
    assert id_of(lambda: torch.ones(1, device="cuda")) == "torch-without-cuda"
    assert id_of(deserialize) == "torch-without-cuda"


def no_gpu() -> Any:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    return torch


def test_cuda_memory_is_refused_for_real() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")

    found = diagnosed(lambda: torch.empty(2**50, dtype=torch.uint8, device="cuda"))

    assert found is not None
    assert found.id == "cuda-too-large"


def test_the_architecture_is_unknown(tiny_folder: Path) -> None:
    change_config(tiny_folder, model_type="midm-bitext-S")

    found = diagnosed(lambda: load(tiny_folder))

    assert found is not None
    assert found.id == "unknown-architecture"
    assert "midm-bitext-S" in found.happened


def test_the_model_brings_its_own_code(tiny_folder: Path) -> None:
    (tiny_folder / "configuration_mine.py").write_text("")
    change_config(tiny_folder, model_type="mine", auto_map={"AutoConfig": "configuration_mine.MineConfig"})

    found = diagnosed(lambda: load(tiny_folder, trust_remote_code=False))

    assert found is not None
    assert found.id == "remote-code"
    assert "--llm-trust-remote-code" in found.next[0]


# -- plans and recipes


def test_the_whole_model_is_planned_to_the_disk(tmp_path: Path, tiny_folder: Path) -> None:
    import accelerate

    def dispatch() -> None:
        accelerate.load_checkpoint_and_dispatch(
            empty_model(tiny_folder), str(tiny_folder), device_map={"": "disk"}, offload_folder=str(tmp_path)
        )

    assert id_of(dispatch) == "whole-model-on-disk"


def test_offloading_has_no_folder(tiny_bin_folder: Path) -> None:
    import accelerate

    assert id_of(lambda: load(tiny_bin_folder, device_map=device_map())) == "offload-folder-missing"
    assert (
        id_of(lambda: accelerate.dispatch_model(filled_model(tiny_bin_folder), {"model": "cpu", "lm_head": "disk"}))
        == "offload-folder-missing"
    )


def test_dispatch_finds_an_empty_folder(tmp_path: Path, tiny_folder: Path) -> None:
    import accelerate

    found = diagnosed(
        lambda: accelerate.dispatch_model(filled_model(tiny_folder), {"": "disk"}, offload_dir=str(tmp_path / "empty"))
    )

    assert found is not None
    # accelerate before 1.11 refuses the plan itself
    assert found.id in {"offload-folder-empty", "whole-model-on-disk"}


def test_the_recipe_of_the_founding_note(tiny_folder: Path) -> None:
    import accelerate

    def fill(**options: Any) -> Callable[[], None]:
        return lambda: accelerate.load_checkpoint_in_model(empty_model(tiny_folder), str(tiny_folder), **options)

    assert id_of(fill(low_cpu_mem_usage=True)) == "load-checkpoint-argument"
    assert id_of(fill(device_map="auto")) == "device-map-by-name"
    assert id_of(lambda: from_config(str(tiny_folder))) == "from-config-path"


def from_config(config: object) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_config(config)


def test_filling_an_empty_model_without_a_device_map(tiny_folder: Path) -> None:
    import accelerate

    if tuple(map(int, accelerate.__version__.split(".")[:2])) < (1, 10):
        pytest.skip("this accelerate leaves the model empty and says nothing")

    assert (
        id_of(lambda: accelerate.load_checkpoint_in_model(empty_model(tiny_folder), str(tiny_folder)))
        == "no-device-map"
    )


def test_an_empty_model_is_moved(tiny_folder: Path) -> None:
    assert id_of(lambda: empty_model(tiny_folder).to("cpu")) == "meta-tensor"


def test_an_offloaded_model_is_moved(tmp_path: Path, tiny_folder: Path) -> None:
    import accelerate

    model = accelerate.dispatch_model(
        filled_model(tiny_folder), {"model": "cpu", "lm_head": "disk"}, offload_dir=str(tmp_path / "offload")
    )

    assert id_of(lambda: model.to("cpu")) == "offloaded-model-moved"
