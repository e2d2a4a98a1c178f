"""Safetensors files: reading headers, and writing sparse files.

The format: 8 bytes of little-endian header length, a JSON header, then the tensors' bytes without a gap.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.bounds import MAX_READ_BYTES, TooMuch, out_of_bounds
from pytest_llmmem.models.checkpoints.file_header import Header
from pytest_llmmem.models.checkpoints.foreign_json import parse
from pytest_llmmem.models.checkpoints.regular_files import RegularFile
from pytest_llmmem.models.checkpoints.sparse_files import create_sparse, end_with_hole
from pytest_llmmem.models.checkpoints.tensors import BY_CODE, DTYPES, Tensor, tensor

_LENGTH_BYTES: Final = 8
_MAX_HEADER_BYTES: Final = 100_000_000
"""The limit of the safetensors library itself: a longer header is invalid."""


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file. The tensors' bytes are not read and need not exist.

    The safetensors library accepts every file that this accepts. This also refuses repeated names, and headers beyond the
    ``bounds``. Raises ``CheckpointError`` when the file does not start with a valid header.
    """
    with RegularFile(path) as file:
        start = file.read(0, _LENGTH_BYTES)
        length = int.from_bytes(start, "little")
        if start == b"version ":
            raise _broken(path, "it is a git-lfs pointer, not the weights: run 'git lfs pull' in its folder")
        if len(start) < _LENGTH_BYTES or not 2 <= length <= _MAX_HEADER_BYTES:
            raise _broken(path, "it does not start with a safetensors header: download it again")
        if file.size < _LENGTH_BYTES + length:
            raise _broken(path, f"it ends inside its header of {length} bytes: download it again")
        text = file.read(_LENGTH_BYTES, min(length, MAX_READ_BYTES + 1))
    try:
        tensors = tuple(_in_file_order(_entries(text)))
    except TooMuch as error:
        where = f"the header of {path}"
        raise out_of_bounds(where, error) from None
    except ValueError as error:
        raise _broken(path, f"its header is damaged ({error}): download it again") from None
    except (KeyError, TypeError, AttributeError):
        why = "its header is damaged (an entry is not an object of dtype, shape and data_offsets): download it again"
        raise _broken(path, why) from None
    whole_bytes = _LENGTH_BYTES + length + sum(each.nbytes for each in tensors)
    if file.size > whole_bytes:
        raise _broken(path, f"its header accounts for {whole_bytes} of {file.size} bytes: download it again")
    return Header(tensors=tensors, file_bytes=file.size, truncated=file.size < whole_bytes, work_bytes=length)


def _entries(text: bytes) -> dict[str, Any]:
    """The header's entry of each tensor. Raises ``ValueError`` for an invalid header."""
    parsed = parse(text)
    entries = parsed.value
    if not isinstance(entries, dict):
        msg = f"a JSON {type(entries).__name__} instead of an object"
        raise ValueError(msg)  # noqa: TRY004 -- an error of the file, not of an argument
    if parsed.repeated:
        msg = f"{excerpt(parsed.repeated[0])} is there twice"
        raise ValueError(msg)
    metadata = entries.pop("__metadata__", None)
    if metadata is not None and not all(isinstance(value, str) for value in metadata.values()):
        msg = "a value in __metadata__ is not text"
        raise ValueError(msg)
    return entries


def _in_file_order(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[Tensor]:
    """Sort tensors by offset. Raises ``ValueError``, or any error that a malformed entry causes."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        each = _tensor(name, entry)
        start, end = end, end + each.nbytes
        offsets = entry["data_offsets"]
        # 8.0 and true compare equal to integers
        if offsets != [start, end] or type(offsets[0]) is not int or type(offsets[1]) is not int:
            msg = f"{excerpt(name)} should take bytes {start} to {end}, not {excerpt(offsets)}"
            raise ValueError(msg)
        yield each


def _tensor(name: str, entry: Mapping[str, Any]) -> Tensor:
    shape, dtype = entry["shape"], BY_CODE.get(entry["dtype"])
    if dtype is None:
        msg = f"{excerpt(name)} has a dtype that is not known, {excerpt(repr(entry['dtype']), limit=40)}"
        raise ValueError(msg)
    each = tensor(name, dtype.name, tuple(shape))
    if type(shape) is not list or (dtype.bits < 8 and dtype.bits * each.elements % 8):
        msg = f"{excerpt(name)} cannot have the shape {excerpt(shape)}"
        raise ValueError(msg)
    return each


def write_holes(path: Path, tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Write a safetensors file of these tensors, sorted by name. Their data is a hole and reads as 0.

    Returns the start of each tensor's bytes, in the order given. The file takes a few kilobytes on file systems with holes.
    """
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts = {}
    end = 0
    for each in sorted(tensors, key=lambda each: each.name):
        starts[each.name], end = end, end + each.nbytes
        offsets = [starts[each.name], end]
        entries[each.name] = {"dtype": DTYPES[each.dtype].code, "shape": each.shape, "data_offsets": offsets}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    data_start = _LENGTH_BYTES + len(header)
    with create_sparse(path) as file:
        file.write(len(header).to_bytes(_LENGTH_BYTES, "little") + header)
        end_with_hole(file, data_start + end)
    return tuple(data_start + starts[each.name] for each in tensors)


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a safetensors file: {why}")
