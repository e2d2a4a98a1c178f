"""``.npz`` files, as ``numpy.savez`` writes them: a zip of arrays, each with its type and shape at the start."""

import re
import zlib
from pathlib import Path
from typing import Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.bounds import MAX_READ_BYTES, MAX_TENSORS, out_of_bounds
from pytest_llmmem.models.checkpoints.file_header import Header
from pytest_llmmem.models.checkpoints.regular_files import RegularFile
from pytest_llmmem.models.checkpoints.stored_zip import Entry, directory_of, start_of
from pytest_llmmem.models.checkpoints.tensors import Tensor, tensor

SUFFIX: Final = b".npy"
_MAGIC: Final = b"\x93NUMPY"
_START_BYTES: Final = 1024
"""Bytes read of an array for its header: numpy pads headers to 64 or 128 bytes, and a shape of 64 dimensions needs more."""
_HEADER: Final = re.compile(
    rb"\{'descr': '[<>|=]?(?P<kind>[a-zA-Z]\d+)', 'fortran_order': (?:True|False), 'shape': \((?P<shape>[\d, ]*)\), \}"
)
_DTYPES: Final = {
    b"f8": "float64", b"f4": "float32", b"f2": "float16", b"V2": "bfloat16", b"c8": "complex64",
    b"i8": "int64", b"i4": "int32", b"i2": "int16", b"i1": "int8",
    b"u8": "uint64", b"u4": "uint32", b"u2": "uint16", b"u1": "uint8", b"b1": "bool",
}  # fmt: skip
"""Dtypes by numpy's type letter and size. ml_dtypes' bfloat16 is written as ``V2``."""


def read_header(path: Path) -> Header:
    """Read the first bytes of each array of an ``.npz`` file, compressed or not.

    Raises ``CheckpointError`` for an invalid array, and for arrays of Python objects.
    """
    with RegularFile(path) as file:
        directory = directory_of(file, limit=MAX_READ_BYTES)
        if directory is None:
            return Header(tensors=(), file_bytes=file.size, truncated=True, work_bytes=0)
        entries = [entry for entry in directory if entry.name.endswith(SUFFIX)]
        if len(entries) > MAX_TENSORS:
            raise out_of_bounds(path, f"more than {MAX_TENSORS:,} arrays")
        tensors = tuple(_read_array(file, entry) for entry in entries)
        return Header(tensors=tensors, file_bytes=file.size, work_bytes=_START_BYTES // 8 * len(entries))


def _read_array(file: RegularFile, entry: Entry) -> Tensor:
    name = entry.name.removesuffix(SUFFIX).decode(errors="replace")
    start = start_of(file, entry, length=_START_BYTES)
    if entry.method:
        try:
            start = zlib.decompressobj(-zlib.MAX_WBITS).decompress(start, _START_BYTES)
        except zlib.error:
            start = b""
    match = _HEADER.search(start) if start.startswith(_MAGIC) else None
    dtype = _DTYPES.get(match["kind"]) if match else None
    if match is None or dtype is None:
        what = f"{excerpt(name)} is no array of numbers"
        msg = f"{file.path} is not a file of weights: {what}: save arrays of numbers with numpy.savez"
        raise CheckpointError(msg)
    try:
        return tensor(name, dtype, tuple(int(size) for size in re.findall(rb"\d{1,20}", match["shape"])))
    except ValueError as error:
        msg = f"{file.path} is not a file of weights: {error}"
        raise CheckpointError(msg) from None
