"""``.bin`` files as torch.save writes them: headers in, headers and holes out, without torch and without trust.

The format: an uncompressed zip of ``NAME/data.pkl``, a pickled dict of tensors, and one ``NAME/data/KEY`` per storage.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints import stored_zip
from pytest_llmmem.models.checkpoints.bounds import MAX_READ_BYTES, TooMuch, out_of_bounds
from pytest_llmmem.models.checkpoints.regular_files import RegularFile
from pytest_llmmem.models.checkpoints.sparse_files import create_sparse
from pytest_llmmem.models.checkpoints.tensors import DTYPES, Tensor
from pytest_llmmem.models.checkpoints.torch_pickle import read_state_dict, skip

BEFORE_TORCH_1_6: Final = b"\x80\x02\x8a\n"
"""How a file starts that older versions wrote: with the pickle of a magic number."""

_OPERATION_BYTES: Final = 4
"""Of a header that are read in the time of one operation of a pickle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a ``.bin`` file says that it holds."""

    tensors: tuple[Tensor, ...]
    """Empty for a truncated file."""

    truncated: bool
    """Its end, and with it its directory, is not there."""

    found_bytes: int
    """The length that the file has."""

    work_bytes: int
    """Of a safetensors header that is read in the same time."""


def read_header(path: Path) -> Header:
    """The tensors of a ``.bin`` file. Only the zip's directory and ``data.pkl`` are read, and nothing is unpickled.

    Raises ``CheckpointError`` for a file that torch.save did not write, or that holds more than tensors.
    """
    with RegularFile(path) as file:
        start = file.read(0, len(stored_zip.MAGIC))
        if start == BEFORE_TORCH_1_6:
            return _read_old_header(file)
        if start == b"vers":
            raise _broken(path, "it is a git-lfs pointer, not the weights: run 'git lfs pull' in its folder")
        if start != stored_zip.MAGIC:
            raise _broken(path, "it is no zip: download it again")
        try:
            pickled = stored_zip.read_entry(file, b"/data.pkl", limit=MAX_READ_BYTES)
            if pickled is None:
                return Header(tensors=(), truncated=True, found_bytes=file.size, work_bytes=0)
            state = read_state_dict(pickled)
        except TooMuch as error:
            raise out_of_bounds(path, error) from None
        except ValueError as error:
            raise _broken(path, f"{error}: save the state dict alone, with torch.save") from None
    work_bytes = len(pickled) + _OPERATION_BYTES * state.operations
    return Header(tensors=state.tensors, truncated=False, found_bytes=file.size, work_bytes=work_bytes)


def _read_old_header(file: RegularFile) -> Header:
    """Of a file from before torch 1.6: pickles of a magic number, a version, a machine, the dict, the keys; then the numbers."""
    pickled = file.read(0, MAX_READ_BYTES)
    try:
        at = 0
        for _ in range(3):
            at = skip(pickled, at)
        state = read_state_dict(pickled, start=at)
    except TooMuch as error:
        raise out_of_bounds(file.path, error) from None
    except ValueError as error:
        raise _broken(file.path, f"{error}: save the state dict alone, with torch.save") from None
    held = sum(each.nbytes for each in state.tensors)
    return Header(
        tensors=state.tensors,
        truncated=file.size < state.end + held,
        found_bytes=file.size,
        work_bytes=state.end + _OPERATION_BYTES * state.operations,
    )


def write_holes(path: Path, tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Write what torch.save writes for a dict of these tensors, each storage a hole (and so read as 0).

    Returns where each tensor's bytes start. Done by hand because the standard library's zip files cannot have holes.
    """
    with create_sparse(path) as file:
        archive = stored_zip.StoredZipWriter(file)
        archive.add("archive/data.pkl", pickled(tensors))
        archive.add("archive/byteorder", b"little")
        starts = tuple(archive.add_hole(f"archive/data/{key}", each.nbytes) for key, each in enumerate(tensors))
        archive.add("archive/version", b"3\n")
        archive.close()
    return starts


def pickled(tensors: Sequence[Tensor]) -> bytes:
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


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a torch checkpoint: {why}")
