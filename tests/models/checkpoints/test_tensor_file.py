"""Files of tensors under any name, as the libraries write them: each is told apart, and read without its numbers."""

import argparse
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints import gguf_file, onnx_file
from pytest_llmmem.models.checkpoints.file_header import Header
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.checkpoints.tensor_file import format_of, read_as
from pytest_llmmem.models.checkpoints.tensors import tensor
from tests.conftest import needs


def read(path: Path) -> Header:
    return read_as(path, format_of(path))


def names(found: Header) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {each.name: (each.dtype, each.shape) for each in found.tensors}


@needs("torch", "numpy")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_nested_dicts_of_a_training_are_found_and_its_optimizer_is_not(tmp_path: Path, zipped: bool) -> None:
    import numpy as np
    import torch

    weight = torch.zeros(3, 4)
    training = {
        "model": {"w": weight, "tied": weight, "b": torch.zeros(4, dtype=torch.float16)},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3, 4)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "args": argparse.Namespace(lr=0.1, name="a"),
        "epoch": 3,
        "best": np.float64(0.5),
        "history": defaultdict(list, loss=[1.0]),
        "dtype": torch.float16,
        "shape": torch.Size([3, 4]),
    }
    torch.save(training, tmp_path / "epoch3.ckpt", _use_new_zipfile_serialization=zipped)

    found = read(tmp_path / "epoch3.ckpt")

    assert names(found) == {"w": ("float32", (3, 4)), "b": ("float16", (4,))}
    assert format_of(tmp_path / "epoch3.ckpt") == "bin"
    assert not found.truncated


@needs("torch")
def test_dicts_beside_each_other_keep_their_names(tmp_path: Path) -> None:
    import torch

    torch.save({"generator": {"w": torch.zeros(2)}, "critic": {"w": torch.zeros(3)}}, tmp_path / "gan.pt")

    assert set(names(read(tmp_path / "gan.pt"))) == {"generator.w", "critic.w"}


@needs("torch")
def test_a_file_from_before_torch_1_6_that_was_cut_off_is_truncated(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "old.pth"
    torch.save({"w": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])

    assert read(path).truncated


@needs("torch")
def test_a_dict_without_tensors_is_no_file_of_weights(tmp_path: Path) -> None:
    import torch

    torch.save({"epoch": 3}, tmp_path / "training.pt")

    with pytest.raises(CheckpointError, match=r"training\.pt holds no tensors: name the file of the weights"):
        read_checkpoint(tmp_path / "training.pt")


@needs("safetensors", "torch")
def test_safetensors_of_any_name_are_found(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(5)}, tmp_path / "mine.weights")

    assert names(read(tmp_path / "mine.weights")) == {"w": ("float32", (5,))}


@needs("numpy")
@pytest.mark.parametrize("save", ["savez", "savez_compressed"])
def test_arrays_of_numpy_are_found_compressed_or_not(tmp_path: Path, save: str) -> None:
    import numpy as np

    arrays = {
        "w": np.zeros((30, 40), "float16"),
        "layer/b": np.arange(5),
        "scalar": np.float32(1),
        "f": np.ones((2, 3)).T,
    }
    getattr(np, save)(tmp_path / "weights.npz", **arrays)

    found = read(tmp_path / "weights.npz")

    assert names(found) == {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
    assert sum(each.nbytes for each in found.tensors) == sum(array.nbytes for array in arrays.values())


@needs("numpy")
def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))

    with pytest.raises(CheckpointError, match="a is no array of numbers"):
        read(tmp_path / "objects.npz")


def gguf(tensors: list[tuple[str, tuple[int, ...], int, int]], *, data: int) -> bytes:
    """A GGUF file of tensors by name, shape (the fastest dimension first), type and offset, and so many bytes."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bb"),
        text("scores") + struct.pack("<IIQff", 9, 6, 2, 0.5, 1.0),
        text("heads") + struct.pack("<II", 4, 32),
    ]
    infos = [
        text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        for name, shape, kind, offset in tensors
    ]
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs) + b"".join(infos)
    return header + bytes(-len(header) % 32) + bytes(data)


def test_tensors_of_gguf_keep_their_types_and_shapes(tmp_path: Path) -> None:
    content = gguf([("w", (256, 64), 12, 0), ("norm", (64,), 0, 9216)], data=9216 + 256)
    (tmp_path / "m.gguf").write_bytes(content)

    header = gguf_file.read_header(tmp_path / "m.gguf")

    assert header.tensors == (tensor("w", "Q4_K", (64, 256)), tensor("norm", "float32", (64,)))
    assert header.tensors[0].nbytes == 64 * 256 // 256 * 144
    assert (header.model_type, header.truncated) == ("llama", False)
    (tmp_path / "m.gguf").write_bytes(content[:-1])
    assert gguf_file.read_header(tmp_path / "m.gguf").truncated


@needs("gguf")
def test_sizes_of_gguf_types_are_those_of_its_own_library() -> None:
    from gguf.constants import GGML_QUANT_SIZES

    from pytest_llmmem.models.checkpoints.tensors import nbytes_of

    ours = {kind: nbytes_of(256, name) for kind, name in gguf_file._TYPES.items()}

    theirs = {int(kind): 256 // elements * nbytes for kind, (elements, nbytes) in GGML_QUANT_SIZES.items()}
    assert ours == {kind: theirs[kind] for kind in ours}


WHOLE_GGUF = gguf([("w", (256, 64), 12, 0), ("norm", (64,), 0, 9216)], data=16)


@settings(derandomize=True, max_examples=300)
@given(data=st.data())
def test_a_gguf_header_that_was_changed_is_read_or_refused(data: st.DataObject, tmp_path_factory: Any) -> None:
    at = data.draw(st.integers(0, len(WHOLE_GGUF)))
    end = data.draw(st.integers(at, min(len(WHOLE_GGUF), at + 8)))
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(WHOLE_GGUF[:at] + data.draw(st.binary(max_size=8)) + WHOLE_GGUF[end:])

    try:
        gguf_file.read_header(path)
    except CheckpointError as error:
        assert str(error).isprintable()  # noqa: PT017 -- nothing else is ever raised


def field(number: int, content: bytes | int) -> bytes:
    """A field of protocol buffers."""

    def varint(value: int) -> bytes:
        return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])

    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def onnx_tensor(name: str, shape: tuple[int, ...], *, external: str = "") -> bytes:
    parts = b"".join(field(1, size) for size in shape) + field(2, 1) + field(8, name.encode())
    if external:
        place = field(1, b"location") + field(2, external.encode())
        return field(5, parts + field(13, place) + field(14, 1))
    return field(5, parts + field(9, bytes(4 * shape[0] * shape[-1])))


def test_initializers_of_onnx_are_found_in_the_file_and_beside_it(tmp_path: Path) -> None:
    graph = onnx_tensor("w", (3, 4)) + field(2, b"a graph") + onnx_tensor("v", (5, 6), external="weights.data")
    (tmp_path / "m.onnx").write_bytes(field(1, 8) + field(7, graph) + field(2, b"someone"))
    (tmp_path / "weights.data").write_bytes(bytes(4 * 30))

    header = onnx_file.read_header(tmp_path / "m.onnx")

    assert header.tensors == (tensor("w", "float32", (3, 4)), tensor("v", "float32", (5, 6)))
    assert (header.file_bytes, header.truncated) == ((tmp_path / "m.onnx").stat().st_size + 4 * 30, False)
    (tmp_path / "weights.data").write_bytes(bytes(100))
    assert onnx_file.read_header(tmp_path / "m.onnx").truncated


@settings(derandomize=True, max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_called_onnx_are_read_or_refused(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)

    try:
        onnx_file.read_header(path)
    except CheckpointError as error:
        assert str(error).isprintable()  # noqa: PT017 -- nothing else is ever raised


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("x.pt", b"", "is no file of tensors: it is empty"),
        ("notes.txt", b"Remember the milk, and more", "it begins like none that is known: a file of tensors is safetensors"),
        ("x.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        ("x.gguf", b"GGUF\x03", "its header is damaged, or ends too early"),
        ("x.gguf", b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "it is of version 9, and 2 and 3 are known"),
        ("x.gguf", b"GGUF" + struct.pack("<IQQ", 3, 10**9, 0), "1,000,000,000 tensors"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_tensors_is_said(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(CheckpointError, match=why):
        read(tmp_path / name)
