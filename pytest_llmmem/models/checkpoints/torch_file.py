"""``.bin`` files as torch.save writes them: reading headers and writing sparse files, without torch and without unpickling.

The format: an uncompressed zip of ``NAME/data.pkl``, a pickled dict of tensors, and one ``NAME/data/KEY`` per storage.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints import stored_zip
from pytest_llmmem.models.checkpoints.bounds import MAX_READ_BYTES, TooMuch, out_of_bounds
from pytest_llmmem.models.checkpoints.file_header import Header
from pytest_llmmem.models.checkpoints.regular_files import RegularFile
from pytest_llmmem.models.checkpoints.sparse_files import create_sparse
from pytest_llmmem.models.checkpoints.tensors import DTYPES, Tensor
from pytest_llmmem.models.checkpoints.torch_pickle import read_state_dict, skip

BEFORE_TORCH_1_6: Final = b"\x80\x02\x8a\n"
"""The start of a file of torch before 1.6: the pickle of a magic number."""

_OPERATION_BYTES: Final = 4
"""Header bytes that take as long to read as one pickle operation."""


def read_header(path: Path) -> Header:
    """Read the tensors of a ``.bin`` file. Only the zip's directory and ``data.pkl`` are read, and nothing is unpickled.

    Raises ``CheckpointError`` for a file that torch.save did not write, or that holds objects other than tensors.
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
                return Header(tensors=(), file_bytes=file.size, truncated=True, work_bytes=0)
            state = read_state_dict(pickled)
        except TooMuch as error:
            raise out_of_bounds(path, error) from None
        except ValueError as error:
            raise _broken(path, f"{error}: save the state dict alone, with torch.save") from None
    work_bytes = len(pickled) + _OPERATION_BYTES * state.operations
    return Header(tensors=state.tensors, file_bytes=file.size, work_bytes=work_bytes)


def _read_old_header(file: RegularFile) -> Header:
    """Read a file of torch before 1.6.

    It holds pickles of a magic number, a version, a machine, the dict and the keys; then the numbers.
    """
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
        file_bytes=file.size,
        truncated=file.size < state.end + held,
        work_bytes=state.end + _OPERATION_BYTES * state.operations,
    )


def write_holes(path: Path, tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Write the file that torch.save writes for a dict of these tensors. Each storage is a hole and reads as 0.

    Returns the start of each tensor's bytes. The standard library's zip writer cannot make holes.
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
    """The pickle that torch reads as a dict of these tensors.

    It is assembled by hand: the pickler would import torch to name its functions.
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
