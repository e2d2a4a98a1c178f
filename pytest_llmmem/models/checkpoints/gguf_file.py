"""GGUF files, as llama.cpp writes them: the tensors in the header, in their own types.

The format: ``GGUF``, a version, the number of tensors, the number of key-value pairs, the pairs, and for each tensor its name,
dimensions, type and offset; then the tensors' bytes. All numbers are little-endian.
"""

import struct
from pathlib import Path
from typing import Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.bounds import MAX_READ_BYTES, MAX_TENSORS, TooMuch, out_of_bounds
from pytest_llmmem.models.checkpoints.file_header import Header
from pytest_llmmem.models.checkpoints.regular_files import RegularFile
from pytest_llmmem.models.checkpoints.tensors import Tensor, tensor

MAGIC: Final = b"GGUF"

_TYPES: Final = {
    0: "float32", 1: "float16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
    21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 29: "IQ1_M",
    30: "bfloat16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
"""Dtypes by the number of their ``ggml_type`` in ggml.h."""

_VALUE_BYTES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of the fixed-length value types, by type number."""
_TEXT: Final = 8
_ARRAY: Final = 9
_MAX_VALUES: Final = 2_000_000
"""Strings in all arrays together: a vocabulary has up to 262,144, and twice as many merges."""
_ALIGNMENT: Final = 32


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file, but no tensor. Raises ``CheckpointError`` for other files, and beyond a limit."""
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
        file_bytes=size,
        truncated=size < data_start + end,
        work_bytes=reader.at,
        model_type=architecture,
    )


class _Reader:
    """Reads numbers and strings in sequence. Raises ``struct.error`` at an early end."""

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
        """Skip one value. Raises ``KeyError`` for an unknown type, ``TooMuch`` for too many strings."""
        if kind == _TEXT:
            self.text()
        elif kind == _ARRAY:
            of, length = self.number("<I"), self.number("<Q")
            if of in _VALUE_BYTES:
                self.take(length * _VALUE_BYTES[of])
                return
            if of != _TEXT:
                raise KeyError(of)  # arrays of arrays: the format allows them, no model uses them
            self._values += length
            if self._values > _MAX_VALUES:
                msg = f"arrays of more than {_MAX_VALUES:,} texts"
                raise TooMuch(msg)
            for _ in range(length):
                self.text()
        else:
            self.take(_VALUE_BYTES[kind])


def _read_counts(reader: _Reader) -> tuple[int, int]:
    """The number of tensors and of values. Raises ``ValueError`` for a file that is not GGUF, ``TooMuch`` beyond a limit."""
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
    """Read the architecture and skip all other values."""
    architecture = None
    for _ in range(count):
        key, kind = reader.text(), reader.number("<I")
        if key == b"general.architecture" and kind == _TEXT:
            architecture = excerpt(reader.text().decode())
        else:
            reader.skip_value(kind)
    return architecture


def _read_tensors(reader: _Reader, count: int) -> tuple[tuple[Tensor, ...], int]:
    """The tensors, and the end of the last one's bytes relative to the first one's start."""
    found = []
    end = 0
    for _ in range(count):
        name = reader.text().decode()
        dimensions = reader.number("<I")
        if dimensions > 8:
            msg = f"{excerpt(name)} has {dimensions:,} dimensions"
            raise ValueError(msg)
        # the fastest-varying dimension comes first
        shape = tuple(reversed([reader.number("<Q") for _ in range(dimensions)]))
        kind, offset = reader.number("<I"), reader.number("<Q")
        if kind not in _TYPES:
            msg = f"{excerpt(name)} has type {kind}, which is not known"
            raise ValueError(msg)
        each = tensor(name, _TYPES[kind], shape)
        found.append(each)
        end = max(end, offset + each.nbytes)
    return tuple(found), end
