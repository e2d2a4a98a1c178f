"""A single file of tensors with any name: its format is detected from its first bytes. The limits of a checkpoint apply."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints import gguf_file, numpy_file, onnx_file, safetensors_file, stored_zip, torch_file
from pytest_llmmem.models.checkpoints.file_header import Header
from pytest_llmmem.models.checkpoints.regular_files import RegularFile

FileFormat = Literal["safetensors", "bin", "gguf", "npz", "onnx"]

SUFFIXES: Final = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".gguf", ".npz", ".onnx")
"""Suffixes of the files that are examined when a folder has no weights with transformers' names."""

ACCEPTED: Final = "a file of tensors is safetensors, torch.save's, GGUF, numpy's .npz or ONNX"


_READERS: Final[dict[FileFormat, Callable[[Path], Header]]] = {
    "safetensors": safetensors_file.read_header,
    "bin": torch_file.read_header,
    "gguf": gguf_file.read_header,
    "npz": numpy_file.read_header,
    "onnx": onnx_file.read_header,
}


def read_as(path: Path, format_: FileFormat) -> Header:
    """Read the header of a file of a known format. The file may have no tensors."""
    return _READERS[format_](path)


def format_of(path: Path) -> FileFormat:
    """Detect the format from the first bytes, and for ONNX, without a magic number, from the name. Raises ``CheckpointError``."""
    with RegularFile(path) as file:
        start = file.read(0, 16)
        if start.startswith(stored_zip.MAGIC):
            return "npz" if stored_zip.first_name(file).endswith(numpy_file.SUFFIX) else "bin"
    if start.startswith(gguf_file.MAGIC):
        return "gguf"
    if start.startswith(torch_file.BEFORE_TORCH_1_6):
        return "bin"
    if path.suffix == ".onnx":
        return "onnx"
    if start[8:9] == b"{" or start.startswith(b"version ") or path.suffix == ".safetensors":
        return "safetensors"
    if path.suffix == ".bin":
        return "bin"
    kind = "it is empty" if not start else "it begins like none that is known"
    msg = f"{path} is no file of tensors: {kind}: {ACCEPTED}"
    raise CheckpointError(msg)
