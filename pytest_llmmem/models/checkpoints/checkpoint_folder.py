"""The files of a folder that a load opens, chosen as transformers chooses them."""

import os
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal, Self

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.bounds import MAX_FILES, out_of_bounds
from pytest_llmmem.models.checkpoints.index_file import is_inside, read_index
from pytest_llmmem.models.checkpoints.regular_files import RegularFile

Format = Literal["safetensors", "bin"]

WEIGHT_NAMES: Final[dict[Format, str]] = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}
"""The file of an unsharded checkpoint, in the order in which transformers looks for them."""

_WEIGHT_FILES: Final[dict[Format, re.Pattern[str]]] = {
    "safetensors": re.compile(r"model(-\d+-of-\d+)?\.safetensors"),
    "bin": re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesToLoad:
    """The files of one format that a load opens."""

    index: Path | None
    """``None`` for weights in a single file."""

    there: tuple[str, ...]
    missing: tuple[str, ...]
    """Shards that do not exist. Includes those that the index names outside of the folder: they are never opened."""


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """The listing of a folder at the time it was read."""

    path: Path
    names: tuple[str, ...]
    """Names of everything in the folder, sorted."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """List the folder. Raises ``CheckpointError`` when it is not a folder, and when it has too many files."""
        if not os.path.isdir(path):
            msg = f"{path} is not there: a checkpoint is a folder with config.json and weights, or a file of tensors"
            raise CheckpointError(msg)
        try:
            with os.scandir(path) as entries:
                names = sorted(entry.name for entry in islice(entries, MAX_FILES + 1))
        except OSError as error:
            msg = f"{path} cannot be read ({error.strerror}): make it readable"
            raise CheckpointError(msg) from None
        if len(names) > MAX_FILES:
            raise out_of_bounds(path, f"more than {MAX_FILES:,} files")
        return cls(path, tuple(names))

    def formats(self) -> tuple[Format, ...]:
        """Weight formats in the folder, the preferred one first; empty where no file has a name that transformers uses.

        Raises ``CheckpointError`` when something with such a name is not a file.
        """
        formats = tuple(
            format_ for format_ in WEIGHT_NAMES if self.weight_files(format_) or _index_name(format_) in self.names
        )
        if not formats:
            self._require_files()
        return formats

    def weight_files(self, format_: Format) -> tuple[str, ...]:
        """Names of the files that look like weights, also those that no load opens."""
        return tuple(name for name in self._weight_names(format_) if os.path.isfile(self.path / name))

    def files_to_load(self, format_: Format) -> FilesToLoad:
        """The files that a load opens. Raises ``CheckpointError`` when there are several files and no usable index."""
        single, index = WEIGHT_NAMES[format_], self.path / _index_name(format_)
        if os.path.isfile(self.path / single):
            return FilesToLoad(index=None, there=(single,), missing=())
        if index.name not in self.names:
            shards = ", ".join(self.weight_files(format_)[:10])
            msg = f"{self.path} has shards ({shards}) but no {index.name}: fetch that file too"
            raise CheckpointError(msg)
        files = {name: is_inside(name) and os.path.exists(self.path / name) for name in read_index(index).files}
        return FilesToLoad(
            index=index,
            there=tuple(name for name, is_there in files.items() if is_there),
            missing=tuple(name for name, is_there in files.items() if not is_there),
        )

    def _weight_names(self, format_: Format) -> tuple[str, ...]:
        return tuple(name for name in self.names if _WEIGHT_FILES[format_].fullmatch(name))

    def _require_files(self) -> None:
        for format_ in WEIGHT_NAMES:
            for name in self._weight_names(format_):
                with RegularFile(self.path / name):  # raises an error that names the kind of file
                    pass


def _index_name(format_: Format) -> str:
    return f"{WEIGHT_NAMES[format_]}.index.json"
