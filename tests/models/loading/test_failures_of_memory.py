"""Memory and disk that do not suffice, and loads that need too much of them: for real, and recognised."""

import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_llmmem.core.outcomes import Ending
from pytest_llmmem.diagnosis import Facts, LoadFacts, diagnose
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.loading.residency import freed_nbytes
from tests.conftest import needs
from tests.models.loading.failing import (
    MARKS,
    RAISED,
    child,
    device_map,
    diagnosed,
    facts_of,
    id_of,
    load,
    second_file,
    synthetic,
    transformers_major,
)

pytestmark = MARKS

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 32768,
    "torch_dtype": "bfloat16",
}
"""33 MB for each of the embeddings: more than any noise."""


@pytest.fixture
def larger_folder(tmp_path: Path) -> Path:
    """A checkpoint of 80 MB in three shards."""
    (tmp_path / "larger.json").write_text(json.dumps(CONFIG))
    return synthetic(tmp_path, "larger.json?shard=40MB")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB, on which a disk fills up in no time."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        # lazily: what failed to write there still holds its file open
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_an_allocation_is_refused() -> None:
    import torch

    found = diagnosed(lambda: torch.empty(2**50, dtype=torch.uint8), host_available_bytes=8 * 10**9)

    assert found is not None
    assert found.id == "allocation-refused"
    assert found.happened.startswith("1126 TB of host memory")
    assert "8.00 GB were free" in found.why


@needs("prlimit")
def test_a_limit_refuses_to_map_a_shard(larger_folder: Path) -> None:
    program = """
import resource
from safetensors.torch import load_file
for limit, counted in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (held(counted) + 10**7, before[1]))
    attempt(lambda: load_file(sys.argv[1]))
    resource.setrlimit(limit, before)
"""
    found = [diagnose(facts) for facts in child(program, second_file(larger_folder)).symptoms]

    assert [each and each.id for each in found] == ["mapping-refused", "mapping-refused"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_the_disk_is_always_full() -> None:
    import torch

    def write() -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"weights")

    assert id_of(write) == "disk-full"
    assert id_of(lambda: torch.save({"weight": torch.ones(10**6)}, "/dev/full")) == "disk-full"


def test_the_disk_fills_up(small_disk: Path, larger_folder: Path) -> None:
    import numpy as np
    import torch

    model = load(larger_folder)

    assert id_of(lambda: model.save_pretrained(small_disk / "saved")) == "disk-full"
    assert id_of(lambda: torch.save(model.state_dict(), small_disk / "state.pt")) == "disk-full"
    assert id_of(lambda: np.save(small_disk / "array.npy", np.ones(10**7))) == "disk-full"


def test_a_full_disk_kills_whoever_offloads_through_a_map(small_disk: Path, larger_folder: Path) -> None:
    program = """
import accelerate, transformers
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
with accelerate.init_empty_weights():
    model = transformers.AutoModelForCausalLM.from_config(config)
plan = {"model": "disk", "lm_head": "cpu"}
accelerate.load_checkpoint_and_dispatch(model, sys.argv[1], device_map=plan, offload_folder=sys.argv[2])
"""
    found = diagnose(child(program, larger_folder, small_disk).facts)

    assert found is not None
    assert found.id == "offload-disk-full"
    assert "SIGBUS" in found.happened


@needs("mapped files that can be cut")
def test_a_shard_is_cut_after_it_was_mapped(larger_folder: Path) -> None:
    program = """
import os
from safetensors.torch import load_file
weights = load_file(sys.argv[1])
os.truncate(sys.argv[1], 5000)
[each.float() for each in weights.values()]
"""
    path = second_file(larger_folder)

    died = child(program, path)
    found = diagnose(dataclasses.replace(died.facts, checkpoint=facts_of(read_checkpoint(larger_folder))))

    assert found is not None
    assert found.id == "map-truncated"
    assert path.name in found.why


# -- loads that went through


def test_a_load_is_wider_than_its_checkpoint(tiny_folder: Path) -> None:
    import torch

    model = load(tiny_folder, torch_dtype=torch.float32)
    facts = LoadFacts(dtype=str(model.dtype).removeprefix("torch."))

    found = diagnose(Facts(ending=RAISED, checkpoint=facts_of(read_checkpoint(tiny_folder)), load=facts))

    assert found is not None
    assert found.id == "dtype-wider"
    assert "float32" in found.happened
    assert "bfloat16" in found.next[0]


@needs("/proc")
def test_the_two_copies_recipe_is_seen_as_such(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": 20, "intermediate_size": 2048}))
    folder = synthetic(tmp_path, "deep.json?format=bin")
    if freed_nbytes() is None:
        pytest.skip("what the C library keeps is not known here")
    program = """
import torch, transformers
from pytest_llmmem.models.loading.residency import freed_nbytes
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
transformers.LlamaForCausalLM
before, freed = held("VmRSS"), freed_nbytes()
with torch.device("meta"):
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
model.to_empty(device="cpu")
for each in model.parameters():
    each.data.zero_()  # every page of it is there, as after a random initialisation, in a tenth of the time
model.load_state_dict(torch.load(sys.argv[1] + "/pytorch_model.bin", mmap=False), strict=False)
nbytes = sum(each.nbytes for each in model.parameters())
facts = {"nbytes": nbytes, "peak_bytes": held("VmHWM") - before, "kept_bytes": freed_nbytes() - freed}
print(json.dumps(facts))
"""
    facts = LoadFacts(**json.loads(child(program, folder).stdout))

    found = diagnose(Facts(ending=RAISED, checkpoint=facts_of(read_checkpoint(folder)), load=facts))

    assert found is not None
    assert found.id == "second-copy"


@needs("bitsandbytes")
def test_four_bits_change_nothing_in_a_mixture_of_experts(tmp_path: Path) -> None:
    import transformers

    from pytest_llmmem.models.loading.storage import nbytes_by_device

    config = transformers.MixtralConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_local_experts=8, vocab_size=512
    )
    transformers.MixtralForCausalLM(config).bfloat16().save_pretrained(tmp_path / "mixture")
    checkpoint = read_checkpoint(tmp_path / "mixture")
    model = load(tmp_path / "mixture", quantization_config=transformers.BitsAndBytesConfig(load_in_4bit=True))
    bits = 8 * nbytes_by_device(model)["cpu"] / checkpoint.parameters
    facts = LoadFacts(asked_bits=4, bits_per_parameter=bits)

    found = diagnose(Facts(ending=RAISED, checkpoint=facts_of(checkpoint), load=facts))

    assert (found is not None and found.id) == ("quantization-without-effect" if transformers_major() >= 5 else False)


@needs("bitsandbytes")
def test_a_plan_leaves_a_part_of_a_quantised_model_on_disk(tiny_folder: Path) -> None:
    import transformers

    quantization = transformers.BitsAndBytesConfig(load_in_8bit=True)

    assert (
        id_of(lambda: load(tiny_folder, quantization_config=quantization, device_map=device_map()))
        == "quantized-off-gpu"
    )


def test_both_formats_were_fetched(tiny_folder: Path, tiny_bin_folder: Path) -> None:
    (tiny_folder / "pytorch_model.bin").write_bytes((tiny_bin_folder / "pytorch_model.bin").read_bytes())

    found = diagnose(
        Facts(ending=Ending(kind="completed"), checkpoint=facts_of(read_checkpoint(tiny_folder)), load=LoadFacts())
    )

    assert found is not None
    assert found.id == "fetched-twice"
    assert "pytorch_model.bin" in found.happened
