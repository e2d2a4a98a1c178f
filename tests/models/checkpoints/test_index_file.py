"""The index of a checkpoint in shards: read, refused, and never followed out of the folder."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints import safetensors_file
from pytest_llmmem.models.checkpoints.findings import findings
from pytest_llmmem.models.checkpoints.index_file import is_inside, read_index
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.checkpoints.tensors import tensor


@pytest.mark.parametrize(
    "name", ["model-00001-of-00002.safetensors", "모델.safetensors", "below/x.bin", "a b", "..x", "x.."]
)
def test_a_file_in_the_folder_or_below_it_is_inside(name: str) -> None:
    assert is_inside(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../../x",
        "a/..",
        ".. /x",
        "...",
        "a/ ",
        "/x",
        "//x",
        "a//b",
        "a/",
        "\\x",
        "..\\x",
        "C:x",
        "C:\\x",
        "x\0",
        "x\n",
        "\x1b[2J",
        "\ud800",
    ],
)
def test_what_leads_elsewhere_or_is_no_name_is_not(name: str) -> None:
    assert not is_inside(name)


@given(st.text())
def test_what_is_inside_stays_there(name: str) -> None:
    folder = Path("/folder").resolve()

    assert not is_inside(name) or folder in Path(folder, name).resolve().parents


def test_a_file_outside_is_not_opened_though_it_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for path in (folder / "inside.safetensors", tmp_path / "outside.safetensors"):
        safetensors_file.write_holes(path, [tensor(path.stem, "float32", (2,))])
    weight_map = {"inside": "inside.safetensors", "outside": "../outside.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    checkpoint = read_checkpoint(folder)

    assert [each.name for each in checkpoint.tensors] == ["inside"]
    assert checkpoint.missing == ("../outside.safetensors",)
    assert "outside" in {finding.id for finding in findings(checkpoint)}


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
INDICES = st.fixed_dictionaries(
    {},
    optional={
        "weight_map": st.dictionaries(st.text(max_size=3), st.sampled_from(["a.safetensors", "../x", "b"]) | ODD) | ODD,
        "metadata": st.fixed_dictionaries({"total_size": ODD}) | ODD,
    },
)


@settings(derandomize=True, max_examples=300)
@given(INDICES)
def test_any_index_is_answered_in_printable_sentences(
    tmp_path_factory: pytest.TempPathFactory, index: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "indexed"
    folder.mkdir(exist_ok=True)
    safetensors_file.write_holes(folder / "a.safetensors", [tensor("a", "float32", (2,))])
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    assert all(text.isprintable() for text in answers(folder))


def answers(folder: Path) -> list[str]:
    try:
        return [finding.text for finding in findings(read_checkpoint(folder))]
    except CheckpointError as error:
        return [str(error)]


def test_numbers_of_the_total_are_those_that_stand_there(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text('{"weight_map": {"a": "x"}, "metadata": {"total_size": 1e999}}')

    assert read_index(path).total_size == float("inf")
