"""Files that an inference engine loads: ONNX by onnxruntime, GGUF by llama.cpp."""

from pathlib import Path

import pytest

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.checkpoints.safetensors_file import write_holes
from pytest_llmmem.models.checkpoints.tensors import tensor
from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.strategies import STRATEGIES

SIZE = 512


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffers message: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def value_info(name: bytes) -> bytes:
    """A float32 input or output of shape (1, SIZE)."""
    shape = b"".join(field(1, field(1, size)) for size in (1, SIZE))
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def write_onnx(folder: Path) -> Path:
    """``y = x @ w``, with the weights in a file of their own (onnx.proto3)."""
    location = field(13, field(1, b"location") + field(2, b"w.data"))
    weight = field(1, SIZE) + field(1, SIZE) + field(2, 1) + field(8, b"w") + location + field(14, 1)
    node = field(1, b"x") + field(1, b"w") + field(2, b"y") + field(4, b"MatMul")
    graph = (
        field(1, node) + field(2, b"g") + field(5, weight) + field(11, value_info(b"x")) + field(12, value_info(b"y"))
    )
    path = folder / "model.onnx"
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 17)))
    (folder / "w.data").write_bytes(bytes(SIZE * SIZE * 4))
    return path


def request(checkpoint: Checkpoint, folder: Path, **options: object) -> LoadRequest:
    return LoadRequest(checkpoint=checkpoint, offload_folder=folder, options=options)


@pytest.mark.parametrize("is_folder", [False, True])
def test_an_onnx_file_is_loaded_by_onnxruntime(tmp_path: Path, *, is_folder: bool) -> None:
    pytest.importorskip("onnxruntime")
    import numpy as np

    path = write_onnx(tmp_path)
    checkpoint = read_checkpoint(tmp_path if is_folder else path)
    asked = request(checkpoint, tmp_path)

    session = STRATEGIES["default"].load(asked)

    assert session.run(None, {"x": np.ones((1, SIZE), np.float32)})[0].shape == (1, SIZE)
    assert checkpoint.weights_bytes == SIZE * SIZE * 4
    assert asked.written() == f"InferenceSession({str(path)!r})"


def test_arguments_that_onnxruntime_would_ignore_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    checkpoint = read_checkpoint(write_onnx(tmp_path))

    with pytest.raises(CheckpointError, match=r"InferenceSession takes no argument 'dtype': leave it out"):
        request(checkpoint, tmp_path, dtype="float16").from_pretrained()
    with pytest.raises(CheckpointError, match="only a model of transformers is built from its config"):
        request(checkpoint, tmp_path).initialised()


def test_llama_cpp_refuses_other_files_in_one_sentence(tmp_path: Path) -> None:
    write_holes(tmp_path / "model.safetensors", [tensor("w", "float16", (4, 4))])
    asked = request(read_checkpoint(tmp_path), tmp_path)

    strategy = STRATEGIES["llama_cpp"]

    assert strategy.call is not None
    with pytest.raises(CheckpointError, match=r"llama\.cpp loads GGUF, and this is safetensors"):
        strategy.call(asked)
