"""Safetensors files: headers in, headers and holes out.

The format: 8 bytes of little-endian header length, a JSON header, then the tensors' bytes without a gap.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.tensors import BY_CODE, DTYPES, Tensor, tensor

_LENGTH_BYTES: Final = 8
_MAX_HEADER_BYTES: Final = 100_000_000
"""The limit of the safetensors library itself: what is longer is no header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a safetensors file says that it holds."""

    tensors: tuple[Tensor, ...]
    """In the order of their bytes."""

    file_bytes: int
    """The length that the header implies; a shorter file is truncated."""


def read_header(path: Path) -> Header:
    """The header of a safetensors file; the tensors' bytes are not read and need not be there.

    Raises ``CheckpointError`` when the file does not start with a valid header.
    """
    with path.open("rb") as file:
        start = file.read(_LENGTH_BYTES)
        length = int.from_bytes(start, "little")
        if start == b"version ":
            raise _broken(path, "it is a git-lfs pointer, not the weights: run 'git lfs pull' in its folder")
        if len(start) < _LENGTH_BYTES or not 2 <= length <= _MAX_HEADER_BYTES:
            raise _broken(path, "it does not start with a safetensors header: download it again")
        text = file.read(length)
    if len(text) < length:
        raise _broken(path, f"it ends inside its header of {length} bytes: download it again")
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        tensors = tuple(_in_file_order(entries))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(path, f"its header is damaged ({error}): download it again") from error
    file_bytes = _LENGTH_BYTES + length + sum(each.nbytes for each in tensors)
    if path.stat().st_size > file_bytes:
        raise _broken(path, f"its header accounts for {file_bytes} of {path.stat().st_size} bytes: download it again")
    return Header(tensors=tensors, file_bytes=file_bytes)


def _in_file_order(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[Tensor]:
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: tuple(item[1]["data_offsets"])):
        each = tensor(name, BY_CODE[entry["dtype"]].name, tuple(entry["shape"]))
        start, end = end, end + each.nbytes
        if entry["data_offsets"] != [start, end]:
            msg = f"{name} should take bytes {start} to {end}, not {entry['data_offsets']}"
            raise ValueError(msg)
        yield each


def write_holes(path: Path, tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Write a safetensors file of these tensors, sorted by name, whose numbers are all a hole (and so read as 0).

    Returns where each tensor's bytes start, in the order given. The file takes a few kilobytes where the file system knows holes.
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
    with path.open("wb") as file:
        file.write(len(header).to_bytes(_LENGTH_BYTES, "little") + header)
        file.truncate(data_start + end)
    return tuple(data_start + starts[each.name] for each in tensors)


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a safetensors file: {why}")
