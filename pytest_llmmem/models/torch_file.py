"""``.bin`` files as torch.save writes them: headers in, headers and holes out, without torch and without trust.

The format: an uncompressed zip of ``NAME/data.pkl``, a pickled dict of tensors, and one ``NAME/data/KEY`` per storage.
"""

import io
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.tensors import BY_STORAGE, DTYPES, Tensor, tensor

_ZIP: Final = b"PK\x03\x04"
_BEFORE_TORCH_1_6: Final = b"\x80\x02\x8a\n"
_ALIGNMENT: Final = 64


def read_tensors(path: Path) -> tuple[Tensor, ...] | None:
    """The tensors of a ``.bin`` file; ``None`` when its end, and with it its directory, is not there (a truncated file).

    Only the directory and ``data.pkl`` are read, and of the pickle nothing but tensors is ever built. Tied weights count
    once, under their first name, as in a safetensors file.
    Raises ``CheckpointError`` for a file that torch.save did not write, or that holds more than tensors.
    """
    with path.open("rb") as file:
        start = file.read(len(_ZIP))
    if start == _BEFORE_TORCH_1_6:
        raise _broken(path, "it was written before torch 1.6: torch.load it and torch.save it once")
    if start == b"vers":
        raise _broken(path, "it is a git-lfs pointer, not the weights: run 'git lfs pull' in its folder")
    if start != _ZIP:
        raise _broken(path, "it is no zip: download it again")
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        pickled = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if pickled is None:
            raise _broken(path, "it has no data.pkl: write it with torch.save")
        try:
            state = _TensorsOnly(io.BytesIO(archive.read(pickled))).load()
        except Exception as error:  # a damaged pickle raises anything, as the pickle documentation warns
            raise _broken(path, f"its pickle holds more than tensors ({error}): save the state dict alone") from error
    if not isinstance(state, dict):
        raise _broken(path, f"it holds a {type(state).__name__}, not a dict of tensors: save the state dict alone")
    first_names: dict[_Found, str] = {}
    for name, found in state.items():
        if isinstance(found, _Found):
            first_names.setdefault(found, str(name))
    return tuple(tensor(name, found.dtype, found.shape) for found, name in first_names.items())


class _Found(NamedTuple):
    """What stands in for a tensor: equal when two names share one place (tied weights)."""

    storage: tuple[str, str]
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.storage[1]


class _TensorsOnly(pickle.Unpickler):
    """Builds a stand-in for each tensor, and refuses every name that a plain state dict has no use for."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                return lambda storage, offset, shape, stride, *_: _Found(storage, offset, tuple(shape), tuple(stride))
            case "torch._utils", "_rebuild_parameter":
                return lambda found, *_: found
            case "torch", storage if storage in BY_STORAGE:
                return BY_STORAGE[storage].name
        msg = f"it asks for {module}.{name}"
        raise pickle.UnpicklingError(msg)

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        _storage, dtype, key, *_ = pid
        return str(key), str(dtype)


def write_holes(path: Path, tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Write what torch.save writes for a dict of these tensors, each storage a hole (and so read as 0).

    Returns where each tensor's bytes start. Done by hand because the standard library's zip files cannot have holes.
    """
    with path.open("wb") as file:
        archive = _StoredZip(file)
        archive.add("archive/data.pkl", _pickled(tensors))
        archive.add("archive/byteorder", b"little")
        starts = tuple(archive.add_hole(f"archive/data/{key}", each.nbytes) for key, each in enumerate(tensors))
        archive.add("archive/version", b"3\n")
        archive.close()
    return starts


def _pickled(tensors: Sequence[Tensor]) -> bytes:
    """The bytes that torch unpickles into a dict of these tensors.

    Put together by hand: the pickler would import torch to name its functions.
    """
    items = b"".join(
        _literal(each.name)
        + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + _literal("storage")
        + f"ctorch\n{DTYPES[each.dtype].storage}\n".encode()
        + _literal(str(key))
        + _literal("cpu")
        + _literal(each.elements)
        + b"tQ"
        + _literal(0)
        + _literal(each.shape)
        + _literal(_strides(each.shape))
        + b"\x89ccollections\nOrderedDict\n)RtR"
        for key, each in enumerate(tensors)
    )
    return b"\x80\x02}(" + items + b"u."


def _literal(value: str | int | tuple[int, ...]) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1]


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1] * len(shape)
    for axis in range(len(shape) - 1, 0, -1):
        strides[axis - 1] = strides[axis] * shape[axis]
    return tuple(strides)


class _StoredZip:
    """Just enough of a zip64 writer: stored entries, aligned as torch aligns them, whose bytes may be a hole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._directory: list[bytes] = []

    def add(self, name: str, content: bytes) -> None:
        self._open(name, len(content), zlib.crc32(content))
        self._file.write(content)

    def add_hole(self, name: str, size: int) -> int:
        # The checksum of the hole is left at 0: torch does not check it, and random fill would change it.
        start = self._open(name, size, checksum=0)
        self._file.seek(start + size)
        return start

    def _open(self, name: str, size: int, checksum: int) -> int:
        header = self._file.tell()
        encoded = name.encode()
        size64 = struct.pack("<HHQQ", 1, 16, size, size)
        unpadded = header + 30 + len(encoded) + len(size64) + 4
        padding = -unpadded % _ALIGNMENT
        extra = size64 + struct.pack("<HH", 0x4246, padding) + bytes(padding)
        # Version 4.5 (zip64), no flags, stored, no date; sizes stand in the zip64 field.
        common = struct.pack("<HHHHHIII", 45, 0, 0, 0, 0x21, checksum, 0xFFFFFFFF, 0xFFFFFFFF)
        self._file.write(_ZIP + common + struct.pack("<HH", len(encoded), len(extra)) + encoded + extra)
        extra = struct.pack("<HHQQQ", 1, 24, size, size, header)
        tail = struct.pack("<HHHHHII", len(encoded), len(extra), 0, 0, 0, 0, 0xFFFFFFFF)
        self._directory.append(b"PK\x01\x02" + struct.pack("<H", 45) + common + tail + encoded + extra)
        return self._file.tell()

    def close(self) -> None:
        start = self._file.tell()
        directory = b"".join(self._directory)
        end = start + len(directory)
        count = len(self._directory)
        end64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), start)
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        no_zip64 = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        self._file.write(directory + end64 + locator + no_zip64)


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a torch checkpoint: {why}")
