"""``llmmem inspect``."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Llmmem

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def checkpoint(llmmem: Llmmem) -> Path:
    """A tiny one in two shards."""
    assert llmmem("synth", "tiny-llama", "made", "--shard", "300kB").code == 0
    assert sorted(path.name for path in Path("made").glob("*.safetensors")) == list(SHARDS)
    return Path("made")


def change_index(checkpoint: Path, **changes: Any) -> None:
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | changes))


def weight_map(checkpoint: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((checkpoint / "model.safetensors.index.json").read_text())["weight_map"]
    return found


def test_a_whole_checkpoint_is_described(llmmem: Llmmem, checkpoint: Path) -> None:
    done = llmmem("inspect", checkpoint)

    assert (done.code, done.err) == (0, "")
    for text in ("LlamaForCausalLM", "213,568", "427 kB bfloat16", "model.safetensors.index.json", *SHARDS):
        assert text in done.out
    assert "found" not in done.out


def test_a_source_is_made_and_described(llmmem: Llmmem) -> None:
    document = llmmem("inspect", "synthetic:tiny-neox?dtype=float32", "--json").document

    assert document["source"] == "synthetic:tiny-neox?dtype=float32"
    assert document["bytes_by_dtype"] == {"float32": document["weights_bytes"]}
    assert document["parameters"] == 265_600
    assert (document["index"], document["findings"]) == (None, [])


def test_json_has_every_shard(llmmem: Llmmem, checkpoint: Path) -> None:
    document = llmmem("inspect", checkpoint, "--json").document

    assert [shard["file"] for shard in document["shards"]] == list(SHARDS)
    assert sum(shard["weights_bytes"] for shard in document["shards"]) == document["weights_bytes"]
    assert {shard["state"] for shard in document["shards"]} == {"ok"}


@pytest.mark.parametrize("json_", [(), ("--json",)], ids=["text", "json"])
def test_a_missing_shard_is_found(llmmem: Llmmem, checkpoint: Path, json_: tuple[str, ...]) -> None:
    (checkpoint / SHARDS[1]).unlink()

    done = llmmem("inspect", checkpoint, *json_)

    assert done.code == 1
    assert f"{SHARDS[1]} is not there, and the index names it: fetch it" in done.out


def test_a_shard_under_another_name_is_named_beside_the_missing_one(llmmem: Llmmem, checkpoint: Path) -> None:
    (checkpoint / SHARDS[1]).rename(checkpoint / "renamed.safetensors")

    done = llmmem("inspect", checkpoint)

    assert done.code == 1
    assert f"{SHARDS[1]} is not there, and the index names it" in done.out
    assert "or give renamed.safetensors, which no index names, its name back" in done.out
    assert "of the shards that are there" in done.out


def test_a_shard_that_is_cut_off_is_found(llmmem: Llmmem, checkpoint: Path) -> None:
    with (checkpoint / SHARDS[0]).open("r+b") as file:
        file.truncate((checkpoint / SHARDS[0]).stat().st_size - 1)

    done = llmmem("inspect", checkpoint, "--json")

    assert done.code == 1
    assert [shard["state"] for shard in done.document["shards"]] == ["truncated", "ok"]
    assert [finding["id"] for finding in done.document["findings"]] == ["truncated"]


def test_weights_in_two_formats_are_found(llmmem: Llmmem, checkpoint: Path) -> None:
    assert llmmem("synth", "tiny-llama", "other", "--format", "bin").code == 0
    Path("other/pytorch_model.bin").rename(checkpoint / "pytorch_model.bin")

    done = llmmem("inspect", checkpoint)

    assert done.code == 1
    assert "found: pytorch_model.bin (" in done.out
    assert "no load reads it beside safetensors files: remove it" in done.out


def test_an_index_that_names_the_wrong_file_is_found(llmmem: Llmmem, checkpoint: Path) -> None:
    tensors = weight_map(checkpoint)
    moved = next(name for name, file in tensors.items() if file == SHARDS[0])
    change_index(checkpoint, weight_map=tensors | {moved: SHARDS[1]})

    done = llmmem("inspect", checkpoint)

    assert done.code == 1
    assert f"looks for {moved} in a file that does not hold it" in done.out


def test_tensors_that_the_index_leaves_out_are_found(llmmem: Llmmem, checkpoint: Path) -> None:
    tensors = weight_map(checkpoint)
    left_out = tensors.popitem()[0]
    change_index(checkpoint, weight_map=tensors)

    done = llmmem("inspect", checkpoint)

    assert done.code == 1
    assert f"model.safetensors.index.json does not name {left_out}" in done.out


@pytest.mark.parametrize("metadata", [{"total_size": 1}, {"total_size": 1.5}])
def test_a_wrong_total_size_is_found(llmmem: Llmmem, checkpoint: Path, metadata: dict[str, float]) -> None:
    change_index(checkpoint, metadata=metadata)

    done = llmmem("inspect", checkpoint)

    assert done.code == 1
    assert "says total_size 1, the shards hold 427136 bytes" in done.out


@pytest.mark.parametrize("metadata", [None, {}, {"total_size": "unknown"}, {"total_size": 427_136.0}])
def test_an_index_need_not_say_its_total_size(llmmem: Llmmem, checkpoint: Path, metadata: object) -> None:
    change_index(checkpoint, metadata=metadata)

    assert llmmem("inspect", checkpoint).code == 0


def test_what_is_no_checkpoint_is_a_finding_in_one_line(llmmem: Llmmem) -> None:
    Path("empty").mkdir()

    done = llmmem("inspect", "empty")

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("llmmem: ")
    assert "is empty: a checkpoint is" in done.err
    assert done.err.count("\n") == 1


def test_many_shards_are_told_by_the_first_ones_and_all_that_are_not_whole(llmmem: Llmmem) -> None:
    assert llmmem("synth", "tiny-llama", "made", "--shard", "10kB").code == 0
    shards = sorted(Path("made").glob("*.safetensors"))
    shards[-2].unlink()

    done = llmmem("inspect", "made")

    assert done.code == 1
    named = [
        line.split()[0] for line in done.out.splitlines() if line.startswith("model-") and "is not there" not in line
    ]
    assert named == [path.name for path in (*shards[:12], shards[-2])]
    assert f"and {len(shards) - 13} more" in done.out


def test_many_missing_shards_are_told_by_the_first_ones(llmmem: Llmmem, checkpoint: Path) -> None:
    names = [f"model-{number:05}-of-00040.safetensors" for number in range(40)]
    change_index(checkpoint, weight_map=dict(enumerate(names)) | {"a": SHARDS[0]})

    done = llmmem("inspect", checkpoint)

    rows = done.out.partition("found")[0]
    assert [name for name in names if name in rows] == names[:12]
    assert "and 28 more" in rows
    assert done.out.count("is not there, and the index names it") == 12
    assert "found: 28 more that the index names are not there: fetch them" in done.out
    assert len(llmmem("inspect", checkpoint, "--json").document["shards"]) == 41


@pytest.mark.parametrize("command", ["inspect", "estimate"])
def test_neither_torch_nor_transformers_nor_pytest_is_imported(tmp_path: Path, command: str) -> None:
    program = f"""
import sys
sys.argv = ["llmmem", {command!r}, "synthetic:tiny-llama", "--json"]
from pytest_llmmem.cli import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={"XDG_CACHE_HOME": str(tmp_path)},
    )

    assert done.returncode == 0
    assert json.loads(done.stdout)["parameters"] == 213_568
    heavy = {"torch", "transformers", "accelerate", "safetensors", "huggingface_hub", "numpy", "pytest", "rich"}
    assert heavy.isdisjoint(name.partition(".")[0] for name in done.stderr.split())
