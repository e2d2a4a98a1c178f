"""What a checkpoint folder holds, told from its headers: no weight is read and no library is needed."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models import safetensors_file, torch_file
from pytest_llmmem.models.tensors import Tensor, nbytes_of

if TYPE_CHECKING:
    from pytest_llmmem.models.estimate import Estimate

Format = Literal["safetensors", "bin"]

WEIGHT_NAMES: Final[dict[Format, str]] = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}
"""The file of an unsharded checkpoint, in the order in which transformers looks for them."""

_WEIGHT_FILES: Final[dict[Format, re.Pattern[str]]] = {
    "safetensors": re.compile(r"model(-\d+-of-\d+)?\.safetensors"),
    "bin": re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin"),
}
_BLOCK: Final = re.compile(r"(?P<block>.+?\.\d+)\.|(?P<module>.+)\.[^.]+")
"""``model.layers.3.mlp.up_proj.weight`` is of ``model.layers.3``; ``model.embed_tokens.weight`` of its own module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of weights."""

    path: Path
    file_bytes: int

    tensors: tuple[Tensor, ...]
    """Empty for a truncated ``.bin`` file, whose directory is at its end."""

    truncated: bool
    """Shorter than its header says: loading it raises, and reading it through a map dies of SIGBUS."""

    @property
    def tensor_bytes(self) -> int:
        """Bytes of its tensors, by its header."""
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model on disk: what is there, and what should be."""

    source: str
    """As the user wrote it."""

    path: Path

    model_type: str | None
    """From ``config.json``; ``None`` when there is none."""

    format: Format
    """Of the weights that a load reads; safetensors where both are there."""

    shards: tuple[Shard, ...]
    """Those that are there, in the order of their names."""

    index: Path | None
    """``None`` for weights in a single file."""

    missing: tuple[str, ...]
    """Shard files that the index names and that are not there."""

    truncated: tuple[str, ...]
    """Shard files that are shorter than their headers say."""

    duplicates: tuple[str, ...]
    """Weight files of the other format: fetched, stored and never read."""

    formats: tuple[Format, ...]
    """All that are on disk."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Each tensor once, by name."""
        return tuple({tensor.name: tensor for shard in self.shards for tensor in shard.tensors}.values())

    @property
    def parameters(self) -> int:
        """Elements of all tensors; what was not read because its shard is missing does not count."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def largest_shard_bytes(self) -> int:
        """Bytes of the tensors of the largest shard."""
        return max((shard.tensor_bytes for shard in self.shards), default=0)

    @property
    def largest_layer_bytes(self) -> int:
        """Bytes of the largest repeated block, or of a module outside the blocks, such as the embedding, if that is larger."""
        layers: Counter[str] = Counter()
        for tensor in self.tensors:
            match = _BLOCK.match(tensor.name)
            layers[(match["block"] or match["module"]) if match else tensor.name] += tensor.nbytes
        return max(layers.values(), default=0)

    @property
    def bytes_by_dtype(self) -> dict[str, int]:
        """Bytes by the dtypes' names, the largest first."""
        totals: Counter[str] = Counter()
        for tensor in self.tensors:
            totals[tensor.dtype] += tensor.nbytes
        return dict(totals.most_common())

    @property
    def dtype(self) -> str | None:
        """The dtype of most bytes; ``None`` when no tensor could be read."""
        return next(iter(self.bytes_by_dtype), None)

    def nbytes_in(self, dtype: str) -> int:
        """Bytes of all parameters if each were of that dtype. Raises ``ValueError`` for a name that is no dtype."""
        return nbytes_of(self.parameters, dtype)

    def estimate(
        self, *, load: str = "default", dtype: str | None = None, transformers: str | None = None
    ) -> "Estimate":
        """What a strategy needs to load it: see ``models.estimate``. Raises ``ValueError`` for names that are not known."""
        from pytest_llmmem.models.estimate import estimate

        return estimate(self, load=load, dtype=dtype, transformers=transformers)


def read_checkpoint(path: Path, *, source: str | None = None) -> Checkpoint:
    """What the checkpoint in a folder holds; missing and truncated shards are facts, not errors.

    Raises ``CheckpointError`` when a load would find no weights there, or weights that cannot be understood.
    """
    if not path.is_dir():
        msg = f"{path} is not a folder: a checkpoint is a folder with config.json and weights"
        raise CheckpointError(msg)
    formats = tuple(
        format_ for format_ in WEIGHT_NAMES if _weight_files(path, format_) or _index(path, format_).exists()
    )
    if not formats:
        raise _no_weights(path)
    format_ = formats[0]
    index, names = _files_to_load(path, format_)
    shards = tuple(_read_shard(path / name, format_) for name in names if (path / name).exists())
    return Checkpoint(
        source=source or str(path),
        path=path,
        model_type=_read_json(path / "config.json").get("model_type") if (path / "config.json").exists() else None,
        format=format_,
        shards=shards,
        index=index,
        missing=tuple(name for name in names if not (path / name).exists()),
        truncated=tuple(shard.path.name for shard in shards if shard.truncated),
        duplicates=tuple(name for other in formats[1:] for name in _weight_files(path, other)),
        formats=formats,
    )


def _files_to_load(path: Path, format_: Format) -> tuple[Path | None, tuple[str, ...]]:
    """The index, if one is used, and the weight files that a load opens, as transformers chooses them."""
    single = WEIGHT_NAMES[format_]
    if (path / single).exists():
        return None, (single,)
    index = _index(path, format_)
    if not index.exists():
        msg = f"{path} has shards ({', '.join(_weight_files(path, format_))}) but no {index.name}: fetch that file too"
        raise CheckpointError(msg)
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        msg = f"{index} has no 'weight_map' from tensor names to shard files: fetch that file again"
        raise CheckpointError(msg)
    return index, tuple(sorted({str(name) for name in weight_map.values()}))


def _index(path: Path, format_: Format) -> Path:
    return path / f"{WEIGHT_NAMES[format_]}.index.json"


def _weight_files(path: Path, format_: Format) -> tuple[str, ...]:
    return tuple(sorted(name for name in _names_in(path) if _WEIGHT_FILES[format_].fullmatch(name)))


def _names_in(path: Path) -> Iterator[str]:
    return (each.name for each in path.iterdir())


def _read_shard(path: Path, format_: Format) -> Shard:
    file_bytes = path.stat().st_size
    if format_ == "safetensors":
        header = safetensors_file.read_header(path)
        return Shard(path=path, file_bytes=file_bytes, tensors=header.tensors, truncated=file_bytes < header.file_bytes)
    tensors = torch_file.read_tensors(path)
    return Shard(path=path, file_bytes=file_bytes, tensors=tensors or (), truncated=tensors is None)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path} is not JSON ({error}): fetch that file again"
        raise CheckpointError(msg) from error
    if not isinstance(value, dict):
        msg = f"{path} holds a JSON {type(value).__name__} instead of an object: fetch that file again"
        raise CheckpointError(msg)
    return value


def _no_weights(path: Path) -> CheckpointError:
    found = ", ".join(sorted(_names_in(path))[:10])
    accepted = " or ".join(f"{name} (or its index and shards)" for name in WEIGHT_NAMES.values())
    what = f"holds {found}, and no weights" if found else "is empty"
    return CheckpointError(f"{path} {what}: a checkpoint has {accepted}")
