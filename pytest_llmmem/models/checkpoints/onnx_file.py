"""ONNX files: the initializers of their graph, in the file itself or in external data files. No library is needed.

The file is a protocol buffers message: fields with a number and a wire type. Only the initializers of the graph are read;
their bytes are skipped.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.bounds import MAX_TENSORS, out_of_bounds
from pytest_llmmem.models.checkpoints.file_header import Header
from pytest_llmmem.models.checkpoints.index_file import is_inside
from pytest_llmmem.models.checkpoints.regular_files import RegularFile
from pytest_llmmem.models.checkpoints.tensors import Tensor, nbytes_of, tensor

# onnx.proto3
_GRAPH: Final = 7
_INITIALIZER: Final = 5
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL, _LOCATION = 1, 2, 8, 13, 14
_DTYPES: Final = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 16: "bfloat16", 17: "float8_e4m3fn", 19: "float8_e5m2",
}  # fmt: skip
_HALF_BYTES: Final = frozenset({21, 22})
"""uint4 and int4: two elements in a byte."""
_SMALL_BYTES: Final = 4096
"""Longest field that is read. Names, shapes and locations are shorter."""
_MAX_FIELDS: Final = 20 * MAX_TENSORS


class _Field(NamedTuple):
    number: int
    value: int
    """The value of a numeric field; else 0."""
    start: int
    """Start of the field's bytes."""
    end: int


def read_header(path: Path) -> Header:
    """Read the initializers of an ONNX file. Raises ``CheckpointError`` for other files, and beyond a limit."""
    with RegularFile(path) as file:
        reader = _Reader(file)
        tensors: list[Tensor] = []
        ends: dict[str, int] = {}
        try:
            for graph in reader.fields(0, file.size, only=_GRAPH):
                for initializer in reader.fields(graph.start, graph.end, only=_INITIALIZER):
                    each, place, end = _read_tensor(reader, initializer)
                    tensors.append(each)
                    if place:
                        ends[place] = max(ends.get(place, 0), end)
        except (ValueError, UnicodeDecodeError) as error:
            msg = f"{path} is not an ONNX file that can be read: {error}: export it again"
            raise CheckpointError(msg) from None
        size = file.size
    sizes = {name: _size(path.parent, name) for name in ends}
    return Header(
        tensors=tuple(tensors),
        file_bytes=size + sum(sizes.values()),
        truncated=reader.cut or any(sizes[name] < end for name, end in ends.items()),
        work_bytes=32 * reader.count,
    )


def _size(folder: Path, name: str) -> int:
    if not is_inside(name) or not (folder / name).exists():
        return 0
    with RegularFile(folder / name) as file:
        return file.size


def _read_tensor(reader: "_Reader", field: _Field) -> tuple[Tensor, str, int]:
    """A tensor. For external data also the name of the file and the end of the tensor's bytes in it."""
    shape: list[int] = []
    kind, name, place, offset, length = 0, "", "", 0, 0
    for each in reader.fields(field.start, field.end):
        if each.number == _DIMS:
            shape += [each.value] if each.start == each.end else reader.numbers(each)
        elif each.number == _DATA_TYPE:
            kind = each.value
        elif each.number == _NAME:
            name = reader.text(each)
        elif each.number == _EXTERNAL:
            pair = [reader.text(part) for part in reader.fields(each.start, each.end)]
            key, value = pair if len(pair) == 2 else ("", "")
            if key == "location":
                place = value
            elif key in {"offset", "length"} and value.isdecimal() and len(value) < 20:
                offset, length = (int(value), length) if key == "offset" else (offset, int(value))
    if kind in _HALF_BYTES:
        nbytes = -(-math.prod(shape) // 2)
        return Tensor(name=name, dtype="uint8", shape=tuple(shape), nbytes=nbytes), place, offset + (length or nbytes)
    if kind not in _DTYPES:
        msg = f"{excerpt(name)} has data type {kind}, which is not known"
        raise ValueError(msg)
    found = tensor(name, _DTYPES[kind], tuple(shape))
    return found, place, offset + (length or nbytes_of(found.elements, found.dtype))


class _Reader:
    """Reads fields in place and skips the bytes of weights."""

    def __init__(self, file: RegularFile) -> None:
        self._file = file
        self.count = 0
        self.cut = False
        """Whether the file ends inside a field."""

    def fields(self, start: int, end: int, *, only: int | None = None) -> Iterator[_Field]:
        """Iterate over the fields. Raises ``ValueError`` for bytes that are not a message."""
        at = start
        while at < min(end, self._file.size):
            self.count += 1
            if self.count > _MAX_FIELDS:
                raise out_of_bounds(self._file.path, f"more than {_MAX_FIELDS:,} fields")
            content = self._file.read(at, 20)
            key, used = _varint(content, 0)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, used = _varint(content, used)
                field = _Field(number, value, at + used, at + used)
            elif wire in {1, 5}:
                field = _Field(number, 0, at + used, at + used + (8 if wire == 1 else 4))
            elif wire == 2:
                length, used = _varint(content, used)
                field = _Field(number, 0, at + used, at + used + length)
            else:
                msg = f"a field of wire type {wire}"
                raise ValueError(msg)
            if field.end > self._file.size:
                self.cut = True
            at = field.end
            if number and (only is None or number == only):
                yield field

    def numbers(self, field: _Field) -> list[int]:
        content = self._small(field)
        at, found = 0, []
        while at < len(content):
            value, at = _varint(content, at)
            found.append(value)
        return found

    def text(self, field: _Field) -> str:
        return self._small(field).decode()

    def _small(self, field: _Field) -> bytes:
        if field.end - field.start > _SMALL_BYTES:
            msg = f"a name or a shape of {field.end - field.start:,} bytes"
            raise ValueError(msg)
        return self._file.read(field.start, field.end - field.start)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number in seven bits per byte, and its end. Raises ``ValueError`` where it has no end."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        value |= (content[at] & 0x7F) << shift
        at += 1
        if not content[at - 1] & 0x80:
            return value, at
    msg = "a number that does not end"
    raise ValueError(msg)
