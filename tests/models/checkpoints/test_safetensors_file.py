"""Headers of safetensors files: written, read, and refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.file_header import Header
from pytest_llmmem.models.checkpoints.safetensors_file import read_header, write_holes
from pytest_llmmem.models.checkpoints.tensors import DTYPES, Tensor, tensor

SHAPES = st.lists(st.integers(0, 9), max_size=3).map(lambda sizes: (*sizes, 2))
TENSORS = st.dictionaries(
    st.text(min_size=1).filter(lambda name: name != "__metadata__"), st.tuples(st.sampled_from(sorted(DTYPES)), SHAPES)
)


def file_of(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@given(TENSORS)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, named: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    path = tmp_path_factory.mktemp("round") / "model.safetensors"
    tensors = [tensor(name, *rest) for name, rest in named.items()]

    write_holes(path, tensors)

    header = read_header(path)
    assert set(header.tensors) == set(tensors)
    assert not header.truncated


def test_the_safetensors_library_reads_the_file_as_zeros(tmp_path: Path) -> None:
    safe_open = pytest.importorskip("safetensors").safe_open
    tensors = [tensor("b", "float32", (3, 4)), tensor("a", "int64", (2,)), tensor("scalar", "float16", ())]
    write_holes(tmp_path / "model.safetensors", tensors)

    with safe_open(tmp_path / "model.safetensors", "np") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a mapping
        metadata = file.metadata()

    assert {name: (str(value.dtype), value.shape) for name, value in read.items()} == {
        each.name: (each.dtype, each.shape) for each in tensors
    }
    assert not any(value.any() for value in read.values())
    assert metadata == {"format": "pt"}


def test_the_starts_that_are_returned_are_aligned_and_where_the_library_reads(tmp_path: Path) -> None:
    safe_open = pytest.importorskip("safetensors").safe_open
    path = tmp_path / "model.safetensors"
    tensors = [tensor("b", "uint8", (4,)), tensor("a", "uint8", (4,))]
    start_of_b, start_of_a = write_holes(path, tensors)

    with path.open("r+b") as file:
        file.seek(start_of_b)
        file.write(b"\1\2\3\4")

    with safe_open(path, "np") as file:
        assert file.get_tensor("b").tolist() == [1, 2, 3, 4]
    assert start_of_a % 8 == 0


def test_a_truncated_file_still_tells_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_holes(path, [tensor("a", "float32", (100,))])
    whole = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(whole - 100)

    header = read_header(path)

    assert (header.file_bytes, header.truncated) == (whole - 100, True)
    assert header.tensors == (Tensor(name="a", dtype="float32", shape=(100,), nbytes=400),)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "does not start with a safetensors header"),
        (b"\xff" * 64, "does not start with a safetensors header"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git-lfs pointer"),
        ((500).to_bytes(8, "little") + b"{}", "ends inside its header of 500 bytes"),
    ],
    ids=["empty", "garbage", "git-lfs", "short"],
)
def test_a_file_without_a_header_is_refused_with_the_reason(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=why):
        read_header(path)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"{nonsense", "its header is damaged"),
        ([1], "its header is damaged"),
        ({"a": {"dtype": "F32"}}, "its header is damaged"),
        ({"a": ENTRY | {"dtype": "F3"}}, "'F3'"),
        ({"a": ENTRY | {"data_offsets": [0, 9]}}, "a should take bytes 0 to 8"),
        ({"a": ENTRY, "b": ENTRY}, "b should take bytes 8 to 16"),
        ({}, "accounts for 10 of 18 bytes"),
    ],
    ids=["json", "list", "keys", "dtype", "size", "overlap", "unaccounted"],
)
def test_a_header_that_does_not_fit_is_refused_with_the_reason(tmp_path: Path, header: object, why: str) -> None:
    path = file_of(tmp_path / "model.safetensors", header, data=bytes(8))

    with pytest.raises(CheckpointError, match=why):
        read_header(path)


ODD = st.sampled_from(
    [
        -1,
        0,
        1,
        2,
        3,
        8,
        2**32,
        2**63,
        2**64,
        True,
        1.0,
        float("nan"),
        float("inf"),
        "2",
        None,
        [],
        [2],
        {},
        "F32",
        "F4",
        "U8",
    ]
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F4", "U8", "BOOL", "F3"]) | ODD,
        "shape": st.lists(st.integers(0, 3), max_size=3) | st.lists(ODD, max_size=3) | ODD,
        "data_offsets": st.sampled_from([[0, 0], [0, 4], [0, 8], [8, 16]]) | st.lists(ODD, max_size=3) | ODD,
        "more": ODD,
    },
)
HEADERS = st.dictionaries(
    st.text(st.characters(exclude_categories=()), max_size=3) | st.just("__metadata__"), ENTRIES | ODD, max_size=3
)


@settings(derandomize=True, max_examples=1000)
@given(HEADERS, st.integers(0, 16), st.booleans())
@example({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"b": "c"}}, 8, False)
@example({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, 2, False)
@example({"\ud800": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, 1, True)
@example({"__metadata__": {"a": 1}}, 0, False)
@example({"a": {"dtype": "U8", "shape": [2**63, 0], "data_offsets": [0, 0]}}, 0, False)
def test_what_is_accepted_the_library_accepts_with_the_same_tensors(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], data_bytes: int, ascii_: bool
) -> None:
    safetensors = pytest.importorskip("safetensors")
    text = json.dumps(header, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")
    path = file_of(tmp_path_factory.getbasetemp() / "random.safetensors", text, data=bytes(data_bytes))

    ours = answer(path)

    if isinstance(ours, str):
        assert ours.isprintable()
    elif not ours.truncated:
        theirs = {
            (name, each["dtype"], tuple(each["shape"])) for name, each in safetensors.deserialize(path.read_bytes())
        }
        assert theirs == {(each.name, DTYPES[each.dtype].code, each.shape) for each in ours.tensors}


@settings(derandomize=True, max_examples=300)
@given(st.binary(max_size=40), st.integers(0, 300), st.integers(0, 8))
def test_a_file_that_was_changed_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, new: bytes, at: int, left_out: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    write_holes(path, [tensor("a", "float32", (2, 3)), tensor("b", "int8", (5,))])
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + new + whole[at + left_out :])

    ours = answer(path)

    assert not isinstance(ours, str) or ours.isprintable()


def answer(path: Path) -> Header | str:
    """The header, or why it is refused; nothing else is ever raised."""
    try:
        return read_header(path)
    except CheckpointError as error:
        return str(error)
