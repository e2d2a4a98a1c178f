"""Weight files that are cut short, missing or something else: refused by the real libraries, and recognised."""

import json
import os
from pathlib import Path

import pytest

from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from tests.models.loading.failing import MARKS, cut, diagnosed, facts_of, id_of, load, second_file, synthetic

pytestmark = MARKS


def test_a_shard_is_truncated(tiny_folder: Path) -> None:
    cut(second_file(tiny_folder))

    found = diagnosed(lambda: load(tiny_folder), checkpoint=facts_of(read_checkpoint(tiny_folder)))

    assert found is not None
    assert found.id == "shard-truncated"
    assert second_file(tiny_folder).name in found.happened


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        b"<!DOCTYPE html><title>Too many requests</title>",
        b"\x10" + 7 * b"\0" + 99 * b"?",
        b"\x10" + 7 * b"\0" + 99 * b"\xff",
        b"\xff" + 7 * b"\0" + b"{}",
    ],
    ids=["empty", "git-lfs", "html", "json", "utf8", "cut"],
)
def test_a_shard_has_no_header(tiny_folder: Path, content: bytes) -> None:
    second_file(tiny_folder).write_bytes(content)

    assert id_of(lambda: load(tiny_folder)) == "shard-damaged"


def test_a_header_that_lies_is_damage_too(tiny_folder: Path) -> None:
    path = second_file(tiny_folder)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    next(entry for name, entry in header.items() if name != "__metadata__")["shape"][0] += 1
    lying = json.dumps(header).encode()
    path.write_bytes(len(lying).to_bytes(8, "little") + lying + path.read_bytes()[8 + length :])

    assert id_of(lambda: load(tiny_folder)) == "shard-damaged"


@pytest.mark.parametrize("format_", ["safetensors", "bin"])
def test_a_shard_is_missing(tmp_path: Path, format_: str) -> None:
    folder = synthetic(tmp_path, f"tiny-llama?shard=100kB&format={format_}")
    path = second_file(folder)
    path.unlink()

    found = diagnosed(lambda: load(folder))

    assert found is not None
    assert found.id == "shard-missing"
    assert found.happened.startswith(path.name)


def test_the_index_is_missing(tiny_folder: Path) -> None:
    (tiny_folder / "model.safetensors.index.json").unlink()

    found = diagnosed(lambda: load(tiny_folder))

    assert found is not None
    assert found.id == "weights-not-found"
    assert str(tiny_folder) in found.happened


def test_a_bin_file_is_truncated(tiny_bin_folder: Path) -> None:
    import torch

    cut(second_file(tiny_bin_folder))

    assert (
        id_of(lambda: load(tiny_bin_folder), checkpoint=facts_of(read_checkpoint(tiny_bin_folder))) == "bin-truncated"
    )
    assert id_of(lambda: torch.load(second_file(tiny_bin_folder))) == "bin-truncated"


@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_bin_shard_is_cut_off(tmp_path: Path, kept: float) -> None:
    folder = synthetic(tmp_path, "tiny-llama?shard=100kB&format=bin")
    os.truncate(second_file(folder), int(kept * second_file(folder).stat().st_size))

    assert id_of(lambda: load(folder)) in {"bin-truncated", "bin-unreadable"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"<!DOCTYPE html><title>Too many requests</title>", "bin-not-weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs-pointer"),
    ],
)
def test_a_bin_file_is_something_else(tiny_bin_folder: Path, content: bytes, expected: str) -> None:
    import torch

    path = second_file(tiny_bin_folder)
    path.write_bytes(content)

    assert id_of(lambda: torch.load(path)) == expected
    assert id_of(lambda: torch.load(path, weights_only=False)) == expected
    assert id_of(lambda: load(tiny_bin_folder)) in {expected, "bin-unreadable"}


def test_a_bin_file_holds_more_than_tensors(tiny_bin_folder: Path) -> None:
    import torch

    path = second_file(tiny_bin_folder)
    torch.save({"weight": torch.ones(1), "path": Path}, path)

    found = diagnosed(lambda: torch.load(path, weights_only=True))

    assert found is not None
    assert found.id == "bin-holds-code"
    assert "pathlib.Path" in found.happened
