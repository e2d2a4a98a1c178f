"""Files that an inference engine loads: ONNX by onnxruntime, GGUF by llama.cpp."""

import importlib.util
from pathlib import Path

import pytest

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.checkpoints.safetensors_file import write_holes
from pytest_llmmem.models.checkpoints.tensors import tensor
from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.strategies import STRATEGIES
from pytest_llmmem.models.loading.tensor_walk import walk
from tests.conftest import needs
from tests.models.gguf_files import write_llama

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
        request(checkpoint, tmp_path).initialized()


@needs("llama_cpp")
def test_a_gguf_file_is_loaded_by_llama_cpp(tmp_path: Path) -> None:
    weights_bytes = write_llama(tmp_path / "tiny.gguf")
    checkpoint = read_checkpoint(tmp_path)
    asked = request(checkpoint, tmp_path, n_ctx=256)

    model = STRATEGIES["llama_cpp"].load(asked)

    assert (checkpoint.weights_bytes, checkpoint.model_type) == (weights_bytes, "llama")
    assert model.n_ctx() == 256
    assert model.create_completion("a", max_tokens=2)["usage"]["completion_tokens"] == 2
    assert list(walk(model)) == [], "its arrays are for results, and hold no weight"
    assert STRATEGIES["llama_cpp"].call is not None
    assert STRATEGIES["llama_cpp"].call(asked) == f"Llama(model_path='{tmp_path}/tiny.gguf', verbose=False, n_ctx=256)"


@needs("llama_cpp")
def test_arguments_that_llama_cpp_would_ignore_are_refused(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny.gguf")
    checkpoint = read_checkpoint(tmp_path / "tiny.gguf")
    load = STRATEGIES["llama_cpp"].load

    with pytest.raises(CheckpointError, match=r"llama_cpp\.Llama takes no argument 'n_cxt': did you mean 'n_ctx'\?"):
        load(request(checkpoint, tmp_path, n_cxt=64))
    with pytest.raises(CheckpointError, match=r"llama_cpp\.Llama takes no argument 'dtype': leave it out"):
        load(request(checkpoint, tmp_path, dtype="float16"))
    on_gpu = LoadRequest(checkpoint=checkpoint, offload_folder=tmp_path, device="cuda:0")
    with pytest.raises(CheckpointError, match=r"--llm-device=cuda:0: llama\.cpp places layers by .* n_gpu_layers=-1"):
        load(on_gpu)


def test_a_gguf_file_is_not_built_from_a_config(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny.gguf")

    with pytest.raises(CheckpointError, match="only a model of transformers is built from its config"):
        request(read_checkpoint(tmp_path), tmp_path).initialized()


@pytest.mark.parametrize(
    ("file", "load", "needed"),
    [
        ("model.onnx", "default", "onnxruntime"),
        ("model.onnx", "sharded", "onnxruntime"),
        ("tiny.gguf", "default", "transformers and gguf"),
        ("tiny.gguf", "llama_cpp", "llama-cpp-python"),
        ("model.safetensors", "auto", "transformers and accelerate"),
    ],
)
def test_a_load_needs_the_libraries_of_its_checkpoint_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, load: str, needed: str
) -> None:
    folder = tmp_path / file.partition(".")[2]
    folder.mkdir()
    match folder.name:
        case "onnx":
            write_onnx(folder)
        case "gguf":
            write_llama(folder / file)
        case _:
            write_holes(folder / file, [tensor("w", "float16", (4, 4))])
    checkpoint = read_checkpoint(folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)  # as where nothing is installed

    assert STRATEGIES[load].unavailable(checkpoint) == f"needs {needed}: pip install {needed.replace(' and ', ' ')}"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "installed")
    assert STRATEGIES[load].unavailable(checkpoint) is None


def test_what_only_a_loader_of_ones_own_loads_needs_no_library(tmp_path: Path) -> None:
    write_holes(tmp_path / "weights.safetensors", [tensor("w", "float16", (4, 4))])
    asked = request(read_checkpoint(tmp_path / "weights.safetensors"), tmp_path)

    assert STRATEGIES["default"].unavailable(asked.checkpoint) is None
    with pytest.raises(CheckpointError, match=r"transformers loads no file called weights\.safetensors"):
        asked.written()


def test_llama_cpp_refuses_other_files_in_one_sentence(tmp_path: Path) -> None:
    write_holes(tmp_path / "model.safetensors", [tensor("w", "float16", (4, 4))])
    asked = request(read_checkpoint(tmp_path), tmp_path)

    strategy = STRATEGIES["llama_cpp"]

    assert strategy.call is not None
    with pytest.raises(CheckpointError, match=r"llama\.cpp loads GGUF, and this is safetensors"):
        strategy.call(asked)
