"""A load that is followed is the same load, and says which tensor of which shard it reads."""

import importlib
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.core.load_position import describe_position
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.checkpoint_folder import Format
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.loading.load_tracing import follow_load
from pytest_llmmem.models.sources.presets import PRESETS
from pytest_llmmem.models.sources.synthetic import SyntheticSpec, write_synthetic
from pytest_llmmem.workers.load_progress import LoadProgress
from tests.conftest import needs

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")
transformers = pytest.importorskip("transformers")

Notes = list[tuple[str, str]]


def made(folder: Path, *, shard_bytes: int = 100_000, weights_format: Format = "safetensors") -> Checkpoint:
    """A small Llama in bfloat16, filled with numbers."""
    config = json.dumps(PRESETS["tiny-llama"].config)
    spec = SyntheticSpec(
        name="tiny-llama",
        config_json=config,
        dtype="bfloat16",
        shard_bytes=shard_bytes,
        format=weights_format,
        fill="random",
    )
    write_synthetic(spec, folder / "made")
    return read_checkpoint(folder / "made")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    found = made(tmp_path)
    assert len(found.shards) > 2
    return found


def loaded(checkpoint: Checkpoint, dtype: str) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(checkpoint.path, torch_dtype=getattr(torch, dtype))


def followed(checkpoint: Checkpoint, dtype: str) -> tuple[Any, Notes]:
    notes: Notes = []
    with follow_load(lambda *note: notes.append(note)):
        return loaded(checkpoint, dtype), notes


def names_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    return tuple(shard.path.name for shard in checkpoint.shards)


def first_file(checkpoint: Checkpoint) -> tuple[Path, str, str]:
    """The first shard: its path, its name, and its first tensor's."""
    shard = checkpoint.shards[0]
    return shard.path, shard.path.name, shard.tensors[0].name


def mapped(tensors: Mapping[str, Any], checkpoint: Checkpoint) -> set[str]:
    """The names of those that lie in a map of one of the checkpoint's files."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()]
    maps = [line[0].split("-") for line in lines if line[-1].startswith(f"{checkpoint.path}/")]
    ranges = [range(int(start, 16), int(end, 16)) for start, end in maps]
    return {name for name, tensor in tensors.items() if any(tensor.data_ptr() in each for each in ranges)}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("weights_format", ["safetensors", "bin"])
@pytest.mark.parametrize("shard_bytes", [10**9, 10**5])
def test_every_weight_is_the_same_and_every_shard_is_named(
    tmp_path: Path, dtype: str, weights_format: Format, shard_bytes: int
) -> None:
    checkpoint = made(tmp_path, shard_bytes=shard_bytes, weights_format=weights_format)
    plain = loaded(checkpoint, dtype).state_dict()

    model, notes = followed(checkpoint, dtype)

    assert {name: weight.dtype for name, weight in model.state_dict().items()} == dict.fromkeys(
        plain, getattr(torch, dtype)
    )
    assert all(torch.equal(weight, plain[name]) for name, weight in model.state_dict().items())
    assert {shard for shard, _ in notes} - {""} == set(names_of(checkpoint))
    assert notes[-1] == ("", "")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_tensor_is_named_with_its_shard(checkpoint: Checkpoint, dtype: str) -> None:
    if transformers.__version__ < "4.57":
        pytest.skip("this transformers reads a shard as a whole")

    _, notes = followed(checkpoint, dtype)

    stored = {(shard.path.name, tensor.name) for shard in checkpoint.shards for tensor in shard.tensors}
    assert {note for note in notes if note[1]} == stored


@needs("/proc")
def test_what_would_be_mapped_is(checkpoint: Checkpoint) -> None:
    path, _, name = first_file(checkpoint)
    plain = mapped(loaded(checkpoint, "bfloat16").state_dict(), checkpoint)

    model, _ = followed(checkpoint, "bfloat16")
    with follow_load(lambda *_: None):
        tensor = safetensors.safe_open(path, "pt").get_tensor(name)

    assert mapped(model.state_dict(), checkpoint) == plain
    assert bool(plain) == (transformers.__version__ >= "4.57")
    assert mapped({name: tensor}, checkpoint) == {name}


def test_a_tensor_is_named_before_it_is_read_and_only_its_shard_after_the_file_was_closed(
    checkpoint: Checkpoint,
) -> None:
    path, shard, name = first_file(checkpoint)
    notes: Notes = []

    with follow_load(lambda *note: notes.append(note)):
        with safetensors.safe_open(path, "pt") as file:
            file.get_tensor(name)
            assert notes == [(shard, name)]
        assert notes[1:] == [(shard, "")]


def test_a_slice_is_read_when_it_is_indexed(checkpoint: Checkpoint) -> None:
    path, shard, name = first_file(checkpoint)
    with safetensors.safe_open(path, "pt") as file:
        whole, shape = file.get_tensor(name), file.get_slice(name).get_shape()
    notes: Notes = []

    with follow_load(lambda *note: notes.append(note)), safetensors.safe_open(filename=path, framework="pt") as file:
        part = file.get_slice(name)
        assert (part.get_shape(), part.get_dtype()) == (shape, "BF16")
        assert notes == []
        assert torch.equal(part[1:3], whole[1:3])
        assert notes == [(shard, name)]


def test_the_rest_of_an_open_file_is_as_it_was(checkpoint: Checkpoint) -> None:
    path, _, _ = first_file(checkpoint)
    plain = safetensors.safe_open(path, "pt", device="cpu")

    with follow_load(lambda *_: None):
        file = safetensors.safe_open(path, "pt", device="cpu")

    assert (sorted(file.keys()), file.metadata()) == (sorted(plain.keys()), plain.metadata())
    assert hasattr(file, "offset_keys") == hasattr(plain, "offset_keys")
    assert not hasattr(file, "made_up")


def test_a_file_that_is_loaded_as_a_whole_names_its_shard(checkpoint: Checkpoint) -> None:
    from safetensors.torch import load_file

    path, shard, _ = first_file(checkpoint)
    plain = load_file(path)
    notes: Notes = []

    with follow_load(lambda *note: notes.append(note)):
        tensors = load_file(path)
        assert notes[-1] == (shard, "")

    assert tensors.keys() == plain.keys()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in tensors.items())


def test_accelerate_is_followed(checkpoint: Checkpoint) -> None:
    accelerate = pytest.importorskip("accelerate")
    config = transformers.AutoConfig.from_pretrained(checkpoint.path)
    with accelerate.init_empty_weights():
        model = transformers.AutoModelForCausalLM.from_config(config)
    notes: Notes = []

    with follow_load(lambda *note: notes.append(note)):
        accelerate.load_checkpoint_in_model(model, checkpoint.path, device_map={"": "cpu"}, dtype=torch.float32)

    weights = model.state_dict()
    for name, weight in loaded(checkpoint, "float32").state_dict().items():
        assert torch.equal(weights[name], weight)
    assert {shard for shard, _ in notes} - {""} == set(names_of(checkpoint))


def test_everything_is_put_back_also_in_modules_that_were_imported_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_to_the_load.py").write_text("from safetensors import safe_open\nfrom torch import load\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "late_to_the_load", raising=False)
    before = safetensors.safe_open, torch.load

    with follow_load(lambda *_: None):
        late = importlib.import_module("late_to_the_load")
        assert safetensors.torch.safe_open is late.safe_open is not before[0]
        assert torch.serialization.load is late.load is not before[1]

    assert (late.safe_open, late.load) == (safetensors.torch.safe_open, torch.serialization.load) == before


def test_an_error_passes_through_and_everything_is_put_back(checkpoint: Checkpoint) -> None:
    path, _, _ = first_file(checkpoint)
    before = safetensors.safe_open, torch.load
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(safetensors.SafetensorError) as plain:
        safetensors.safe_open(path, "pt")
    notes: Notes = []

    with pytest.raises(safetensors.SafetensorError) as error, follow_load(lambda *note: notes.append(note)):
        safetensors.safe_open(path, "pt")

    assert str(error.value) == str(plain.value)
    assert notes == [("", "")]
    assert (safetensors.safe_open, torch.load) == before


def test_an_error_leaves_the_place_where_it_was_raised(checkpoint: Checkpoint) -> None:
    path, shard, name = first_file(checkpoint)
    notes: Notes = []

    with follow_load(lambda *note: notes.append(note)):
        with pytest.raises(RuntimeError, match="shape"), safetensors.safe_open(path, "pt") as file:
            file.get_tensor(name).reshape(0)
        assert notes == [(shard, name)]


def test_a_file_that_is_still_open_after_the_load_says_nothing(checkpoint: Checkpoint) -> None:
    path, _, name = first_file(checkpoint)
    notes: Notes = []

    with follow_load(lambda *note: notes.append(note)):
        file = safetensors.safe_open(path, "pt")
    tensor = file.get_tensor(name)

    assert notes == [("", "")]
    assert tensor.isfinite().all()


def test_two_can_follow_at_once(checkpoint: Checkpoint) -> None:
    path, shard, name = first_file(checkpoint)
    inner: Notes = []
    outer: Notes = []

    with follow_load(lambda *note: outer.append(note)):
        with follow_load(lambda *note: inner.append(note)):
            safetensors.safe_open(path, "pt").get_tensor(name)
        safetensors.safe_open(path, "pt").get_tensor(name)

    assert inner == [(shard, name), ("", "")]
    assert outer == [(shard, name), (shard, name), ("", "")]


def test_nothing_is_imported() -> None:
    program = """
import sys
from pytest_llmmem.models.loading.load_tracing import follow_load

with follow_load(print):
    pass
sys.exit(bool({"torch", "safetensors", "transformers"} & set(sys.modules)))
"""
    subprocess.run([sys.executable, "-c", program], check=True)


KILLED = """
import os, signal, sys
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from pytest_llmmem.models.loading.load_tracing import follow_load
from pytest_llmmem.workers.load_progress import LoadProgress

folder, place_path, tensor = sys.argv[1:]
place = LoadProgress.open(Path(place_path))


def note(shard, name):
    place.write(shard, name)
    if name == tensor:
        os.kill(os.getpid(), signal.SIGKILL)


with follow_load(note):
    LlamaForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
"""


@needs("signals")
def test_a_worker_that_is_killed_in_a_load_leaves_the_tensor_and_its_shard(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    if transformers.__version__ < "4.57":
        pytest.skip("this transformers reads a shard as a whole")
    tensor = checkpoint.shards[1].tensors[0].name
    place = LoadProgress.create(tmp_path / "place")

    done = subprocess.run([sys.executable, "-c", KILLED, checkpoint.path, tmp_path / "place", tensor], check=False)

    found = place.read()
    place.close()
    assert done.returncode == -signal.SIGKILL
    assert found is not None
    described = describe_position(found.shard, found.tensor, names_of(checkpoint))
    assert described == f"shard 2 of {len(checkpoint.shards)}, `{tensor}`"


def test_of_a_whole_test_the_place_is_left_when_the_read_returns(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.torch import load_file, save_file

    save_file({"w": torch.ones(3)}, tmp_path / "w.safetensors")
    torch.save({"w": torch.ones(3)}, tmp_path / "w.pt")
    np.save(tmp_path / "w.npy", np.ones(3))
    notes: Notes = []

    with follow_load(lambda *note: notes.append(note), mapped="left"):
        load_file(tmp_path / "w.safetensors")
        torch.load(tmp_path / "w.pt")
        np.load(tmp_path / "w.npy")

    assert [shard for shard, _ in notes if shard] == ["w.safetensors", "w.pt", "w.npy"]
    assert all(after == ("", "") for before, after in itertools.pairwise(notes) if before != ("", ""))


def test_a_load_inside_of_a_followed_test_is_followed_in_its_own_way(checkpoint: Checkpoint) -> None:
    outer: Notes = []

    with follow_load(lambda *note: outer.append(note), mapped="left"):
        _, notes = followed(checkpoint, "float32")

    assert {shard for shard, _ in notes} > {""}
    assert set(outer) <= {("", "")}


def test_numpy_names_the_file_that_it_maps_and_the_array_that_it_unpacks(tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "w.npy", np.ones(3))
    np.savez(tmp_path / "w.npz", head=np.ones(3))
    before = vars(np.memmap)["__new__"]
    notes: Notes = []

    with follow_load(lambda *note: notes.append(note)):
        mapped_file = np.memmap(tmp_path / "w.npy")
        np.load(tmp_path / "w.npz")["head"]

    assert notes == [("w.npy", ""), ("w.npz", ""), ("w.npz", "head"), ("", "")]
    assert isinstance(mapped_file, np.memmap)
    assert vars(np.memmap)["__new__"] is before


@pytest.mark.parametrize("mapped", ["followed", "left"])
def test_gguf_names_the_file_and_each_tensor_that_it_dequantizes(tmp_path: Path, mapped: Any) -> None:
    gguf = pytest.importorskip("gguf")
    import numpy as np

    writer = gguf.GGUFWriter(tmp_path / "w.gguf", "llama")
    for name in ("a.weight", "b.weight"):
        writer.add_tensor(name, np.ones((64, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    notes: Notes = []

    with follow_load(lambda *note: notes.append(note), mapped=mapped):
        for each in gguf.GGUFReader(tmp_path / "w.gguf").tensors:
            gguf.dequantize(each.data, each.tensor_type)

    named = [("w.gguf", ""), ("w.gguf", "a.weight"), ("w.gguf", "b.weight")]
    assert list(dict.fromkeys(note for note in notes if note != ("", ""))) == named
    assert notes[-1] == ("", "")
