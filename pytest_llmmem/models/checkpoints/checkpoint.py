"""What a checkpoint folder holds, told from its headers: no weight is read and no library is needed."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_llmmem.models.checkpoints import safetensors_file, torch_file
from pytest_llmmem.models.checkpoints.bounds import MAX_HEADERS_BYTES, MAX_TENSORS, out_of_bounds
from pytest_llmmem.models.checkpoints.checkpoint_folder import CheckpointFolder, Format
from pytest_llmmem.models.checkpoints.garbage_collector import collector_paused
from pytest_llmmem.models.checkpoints.model_config import read_config
from pytest_llmmem.models.checkpoints.tensors import Tensor, nbytes_of

if TYPE_CHECKING:
    from pytest_llmmem.models.estimates.estimate import Estimate

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


@dataclass(frozen=True, kw_only=True)  # without slots: what is worked out of the headers is kept
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
    """Shard files that the index names and that are not there, or not in the folder."""

    truncated: tuple[str, ...]
    """Shard files that are shorter than their headers say."""

    duplicates: tuple[str, ...]
    """Weight files of the other format: fetched, stored and never read."""

    formats: tuple[Format, ...]
    """All that are on disk."""

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """Each tensor once, by name."""
        return tuple({tensor.name: tensor for shard in self.shards for tensor in shard.tensors}.values())

    @cached_property
    def parameters(self) -> int:
        """Elements of all tensors; what was not read because its shard is missing does not count."""
        return sum(tensor.elements for tensor in self.tensors)

    @cached_property
    def weights_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def largest_shard_bytes(self) -> int:
        """Bytes of the tensors of the largest shard."""
        return max((shard.tensor_bytes for shard in self.shards), default=0)

    @cached_property
    def largest_layer_bytes(self) -> int:
        """Bytes of the largest repeated block, or of a module outside the blocks, such as the embedding, if that is larger."""
        layers: Counter[str] = Counter()
        for tensor in self.tensors:
            match = _BLOCK.match(tensor.name)
            layers[(match["block"] or match["module"]) if match else tensor.name] += tensor.nbytes
        return max(layers.values(), default=0)

    @cached_property
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
        from pytest_llmmem.models.estimates.estimate import estimate

        return estimate(self, load=load, dtype=dtype, transformers=transformers)


def read_checkpoint(path: Path, *, source: str | None = None) -> Checkpoint:
    """What the checkpoint in a folder holds; missing and truncated shards are facts, not errors.

    Raises ``CheckpointError`` when a load would find no weights there, weights that cannot be understood, or more than any
    model has: the time and the memory that it takes are bounded.
    """
    folder = CheckpointFolder.read(path)
    formats = folder.formats()
    with collector_paused():
        files = folder.files_to_load(formats[0])
        shards = tuple(_read_shards(path, files.there, formats[0]))
    return Checkpoint(
        source=source or str(path),
        path=path,
        model_type=read_config(path).model_type,
        format=formats[0],
        shards=shards,
        index=files.index,
        missing=files.missing,
        truncated=tuple(shard.path.name for shard in shards if shard.truncated),
        duplicates=tuple(name for other in formats[1:] for name in folder.weight_files(other)),
        formats=formats,
    )


def _read_shards(path: Path, names: Sequence[str], format_: Format) -> Iterator[Shard]:
    """Raises ``CheckpointError`` when all together are too much, which no single one can be."""
    read_shard = {"safetensors": _read_safetensors, "bin": _read_bin}[format_]
    work_bytes = tensors = 0
    for name in names:
        shard, bytes_ = read_shard(path / name)
        work_bytes += bytes_
        tensors += len(shard.tensors)
        if tensors > MAX_TENSORS:
            raise out_of_bounds(path, f"more than {MAX_TENSORS:,} tensors")
        if work_bytes > MAX_HEADERS_BYTES:
            raise out_of_bounds(path, f"headers of more than {MAX_HEADERS_BYTES:,} bytes")
        yield shard


def _read_safetensors(path: Path) -> tuple[Shard, int]:
    header = safetensors_file.read_header(path)
    truncated = header.found_bytes < header.file_bytes
    return Shard(
        path=path, file_bytes=header.found_bytes, tensors=header.tensors, truncated=truncated
    ), header.work_bytes


def _read_bin(path: Path) -> tuple[Shard, int]:
    header = torch_file.read_header(path)
    return Shard(
        path=path, file_bytes=header.found_bytes, tensors=header.tensors, truncated=header.truncated
    ), header.work_bytes
