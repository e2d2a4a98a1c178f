"""GGUF files, as llama.cpp writes them: the tensors that their header names, in their own types.

The format: ``GGUF``, a version, how many tensors and how many pairs of key and value, the pairs, and for each tensor its name,
dimensions, type and place; then the tensors' bytes. All numbers are little-endian.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.bounds import MAX_READ_BYTES, MAX_TENSORS, TooMuch, out_of_bounds
from pytest_llmmem.models.checkpoints.regular_files import RegularFile
from pytest_llmmem.models.checkpoints.tensors import Tensor, tensor

MAGIC: Final = b"GGUF"

_TYPES: Final = {
    0: "float32", 1: "float16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
    21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 29: "IQ1_M",
    30: "bfloat16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
"""Of ``ggml_type`` in ggml.h, by number."""

_VALUE_BYTES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Of the values of a fixed length, by the number of their type."""
_TEXT: Final = 8
_ARRAY: Final = 9
_MAX_VALUES: Final = 2_000_000
"""In all arrays of texts: a vocabulary has up to 262,144, and twice as many merges."""
_ALIGNMENT: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a GGUF file says that it holds."""

    tensors: tuple[Tensor, ...]
    truncated: bool
    found_bytes: int
    work_bytes: int
    architecture: str | None
    """``"llama"``; ``None`` where it does not say."""


def read_header(path: Path) -> Header:
    """The header of a GGUF file; no tensor is read. Raises ``CheckpointError`` for what is none, or out of bounds."""
    with RegularFile(path) as file:
        content, size = file.read(0, MAX_READ_BYTES), file.size
    reader = _Reader(content)
    try:
        tensors, pairs = _read_counts(reader)
        architecture = _read_pairs(reader, pairs)
        found, end = _read_tensors(reader, tensors)
    except TooMuch as error:
        raise out_of_bounds(path, error) from None
    except (struct.error, UnicodeDecodeError, KeyError):
        if len(content) == MAX_READ_BYTES:
            raise out_of_bounds(path, f"a header of more than {MAX_READ_BYTES:,} bytes") from None
        msg = f"{path} is not a GGUF file: its header is damaged, or ends too early: download it again"
        raise CheckpointError(msg) from None
    except ValueError as error:
        msg = f"{path} is not a GGUF file: {error}: download it again"
        raise CheckpointError(msg) from None
    data_start = -(-reader.at // _ALIGNMENT) * _ALIGNMENT
    return Header(
        tensors=found,
        truncated=size < data_start + end,
        found_bytes=size,
        work_bytes=reader.at,
        architecture=architecture,
    )


class _Reader:
    """Numbers and texts, one after the other. Raises ``struct.error`` where they end too early."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0
        self._values = 0

    def take(self, length: int) -> bytes:
        start, self.at = self.at, self.at + length
        if self.at > len(self._content):
            raise struct.error
        return self._content[start : self.at]

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self) -> bytes:
        return self.take(self.number("<Q"))

    def skip_value(self, kind: int) -> None:
        """Raises ``KeyError`` for a type that there is not, ``TooMuch`` for too many texts."""
        if kind == _TEXT:
            self.text()
        elif kind == _ARRAY:
            of, length = self.number("<I"), self.number("<Q")
            if of in _VALUE_BYTES:
                self.take(length * _VALUE_BYTES[of])
                return
            if of != _TEXT:
                raise KeyError(of)  # arrays of arrays: the format has them, and no model
            self._values += length
            if self._values > _MAX_VALUES:
                msg = f"arrays of more than {_MAX_VALUES:,} texts"
                raise TooMuch(msg)
            for _ in range(length):
                self.text()
        else:
            self.take(_VALUE_BYTES[kind])


def _read_counts(reader: _Reader) -> tuple[int, int]:
    """How many tensors, and how many values. Raises ``ValueError`` for what is no GGUF, ``TooMuch`` for too many."""
    if reader.take(4) != MAGIC:
        msg = "it does not start with GGUF"
        raise ValueError(msg)
    version = reader.number("<I")
    if version not in {2, 3}:
        msg = f"it is of version {version}, and 2 and 3 are known"
        raise ValueError(msg)
    tensors, pairs = reader.number("<Q"), reader.number("<Q")
    if tensors > MAX_TENSORS or pairs > MAX_TENSORS:
        msg = f"{tensors:,} tensors and {pairs:,} values"
        raise TooMuch(msg)
    return tensors, pairs


def _read_pairs(reader: _Reader, count: int) -> str | None:
    """The architecture; of the other values only their length is looked at."""
    architecture = None
    for _ in range(count):
        key, kind = reader.text(), reader.number("<I")
        if key == b"general.architecture" and kind == _TEXT:
            architecture = excerpt(reader.text().decode())
        else:
            reader.skip_value(kind)
    return architecture


def _read_tensors(reader: _Reader, count: int) -> tuple[tuple[Tensor, ...], int]:
    """The tensors, and where the last one's bytes end, counted from the first one's start."""
    found = []
    end = 0
    for _ in range(count):
        name = reader.text().decode()
        dimensions = reader.number("<I")
        if dimensions > 8:
            msg = f"{excerpt(name)} has {dimensions:,} dimensions"
            raise ValueError(msg)
        # the fastest dimension comes first
        shape = tuple(reversed([reader.number("<Q") for _ in range(dimensions)]))
        kind, offset = reader.number("<I"), reader.number("<Q")
        if kind not in _TYPES:
            msg = f"{excerpt(name)} has type {kind}, which is not known"
            raise ValueError(msg)
        each = tensor(name, _TYPES[kind], shape)
        found.append(each)
        end = max(end, offset + each.nbytes)
    return tuple(found), end
