"""The contents of a checkpoint folder, read from file headers: no weight is read and no library is needed."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints import quantized
from pytest_llmmem.models.checkpoints.bounds import MAX_HEADERS_BYTES, MAX_TENSORS, out_of_bounds
from pytest_llmmem.models.checkpoints.checkpoint_folder import CheckpointFolder
from pytest_llmmem.models.checkpoints.garbage_collector import collector_paused
from pytest_llmmem.models.checkpoints.model_config import ModelConfig, read_config
from pytest_llmmem.models.checkpoints.other_folders import (
    Kind,
    class_of_pipeline,
    components,
    kind_of,
    second_copies,
    tensor_files,
)
from pytest_llmmem.models.checkpoints.tensor_file import FileFormat, format_of, read_as
from pytest_llmmem.models.checkpoints.tensors import ALL_DTYPES, Tensor, nbytes_of

if TYPE_CHECKING:
    from pytest_llmmem.models.estimates.estimate import Estimate

_BLOCK: Final = re.compile(r"(?P<block>.+?\.\d+)\.|(?P<module>.+)\.[^.]+")
"""``model.layers.3.mlp.up_proj.weight`` belongs to ``model.layers.3``; ``model.embed_tokens.weight`` to its own module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of weights."""

    path: Path
    file_bytes: int

    tensors: tuple[Tensor, ...]
    """Empty for a truncated ``.bin`` file: its directory is at the end of the file."""

    truncated: bool
    """Whether the file is shorter than its header says. Loading it raises; reading it through a memory map ends in SIGBUS."""

    @property
    def tensor_bytes(self) -> int:
        """Bytes of its tensors, from its header."""
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True, kw_only=True)  # without slots: cached properties need a __dict__
class Checkpoint:
    """A model on disk: the files that exist, and the files that should exist."""

    source: str
    """The source as the user wrote it."""

    path: Path
    """The folder, or the file when the source is a file."""

    kind: Kind = "model"
    """The kind of library that loads it."""

    model_type: str | None
    """The model type in ``config.json``; ``None`` when there is none."""

    format: FileFormat
    """The format of the weights that a load reads; safetensors where both formats exist."""

    shards: tuple[Shard, ...]
    """The shards that exist, sorted by name."""

    index: Path | None
    """The index file; ``None`` for weights in a single file."""

    missing: tuple[str, ...]
    """Shard files that the index names and that do not exist, or are outside of the folder."""

    truncated: tuple[str, ...]
    """Shard files that are shorter than their headers say."""

    duplicates: tuple[str, ...]
    """Weight files of another format or layout. They were downloaded and stored, but no load reads them."""

    formats: tuple[FileFormat, ...]
    """All weight formats on disk."""

    adapter: "Checkpoint | None" = None
    """The PEFT adapter that is added when the checkpoint is loaded."""

    component_names: tuple[str, ...] = ()
    """Names of a pipeline's parts that have weights. They are the prefixes of the tensor names."""

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, each once, by name."""
        return tuple({tensor.name: tensor for shard in self.shards for tensor in shard.tensors}.values())

    @cached_property
    def quantization(self) -> str | None:
        """The quantization method of the stored weights: ``"gptq"``, ``"mxfp4"``, ``"gguf"``; ``None`` for plain weights."""
        return quantized.method_of(self._config.raw, self.tensors)

    @cached_property
    def parameters(self) -> int:
        """Elements of all tensors. Tensors of missing shards do not count.

        For a quantized checkpoint, the parameters of the original model: every packed number counts, scales do not.
        """
        if self.quantization is not None:
            return quantized.parameters_of(self.tensors, self._config.raw)
        return sum(tensor.elements for tensor in self.tensors)

    @cached_property
    def weights_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def components(self) -> dict[str, int]:
        """Bytes of a pipeline's parts by name; empty for other checkpoints."""
        return {
            name: sum(tensor.nbytes for tensor in self.tensors if tensor.name.startswith(f"{name}."))
            for name in self.component_names
        }

    @cached_property
    def largest_shard_bytes(self) -> int:
        """Bytes of the tensors of the largest shard."""
        return max((shard.tensor_bytes for shard in self.shards), default=0)

    @cached_property
    def largest_layer_bytes(self) -> int:
        """Bytes of the largest repeated block, or of a larger module outside the blocks, such as the embedding."""
        layers: Counter[str] = Counter()
        for tensor in self.tensors:
            match = _BLOCK.match(tensor.name)
            layers[(match["block"] or match["module"]) if match else tensor.name] += tensor.nbytes
        return max(layers.values(), default=0)

    @cached_property
    def bytes_by_dtype(self) -> dict[str, int]:
        """Bytes by dtype name, the largest first."""
        totals: Counter[str] = Counter()
        for tensor in self.tensors:
            totals[tensor.dtype] += tensor.nbytes
        return dict(totals.most_common())

    @property
    def dtype(self) -> str | None:
        """The dtype that most bytes have; ``None`` when no tensor could be read.

        For a quantized checkpoint, the dtype of most unpacked bytes: a load keeps it, or computes in it.
        """
        names = list(self.bytes_by_dtype)
        if self.quantization is not None:
            floating = (name for name in names if ALL_DTYPES[name].exponent_bits > 4)
            return next(floating, None) or next(iter(names), None)
        return next(iter(names), None)

    @cached_property
    def _config(self) -> ModelConfig:
        return read_config(self.path)

    def nbytes_in(self, dtype: str) -> int:
        """Bytes of all parameters if each had that dtype. Raises ``ValueError`` for an unknown dtype."""
        return nbytes_of(self.parameters, dtype)

    def estimate(
        self, *, load: str = "default", dtype: str | None = None, transformers: str | None = None
    ) -> "Estimate":
        """The memory that a strategy needs to load it: see ``models.estimate``. Raises ``ValueError`` for unknown names."""
        from pytest_llmmem.models.estimates.estimate import estimate

        return estimate(self, load=load, dtype=dtype, transformers=transformers)


def read_checkpoint(path: Path, *, source: str | None = None) -> Checkpoint:
    """Read the contents of a folder or of a file of tensors. Missing and truncated shards are facts, not errors.

    Raises ``CheckpointError`` when there are no weights, when the weights cannot be parsed, or when they exceed the ``bounds``.
    Time and memory are bounded.
    """
    source = source or str(path)
    if path.is_file():
        return _of_files(path, (path,), source)
    folder = CheckpointFolder.read(path)
    kind = kind_of(path, folder.names)
    if kind is not None:
        return _of_components(path, kind, source)
    formats = folder.formats()
    if not formats:
        return _of_files(path, tuple(path / name for name in tensor_files(path, folder.names)), source)
    with collector_paused():
        files = folder.files_to_load(formats[0])
        shards = tuple(_read_shards(path, [path / name for name in files.there], formats[0]))
    return Checkpoint(
        source=source,
        path=path,
        model_type=read_config(path).model_type,
        format=formats[0],
        shards=shards,
        index=files.index,
        missing=files.missing,
        truncated=_truncated(shards),
        duplicates=(
            *(name for other in formats[1:] for name in folder.weight_files(other)),
            *second_copies(path, folder.names),
        ),
        formats=formats,
    )


def _of_files(path: Path, files: Sequence[Path], source: str) -> Checkpoint:
    """Read weight files with any name, for a loader of the user's own."""
    with collector_paused():
        format_ = format_of(files[0])
        shards = tuple(_read_shards(path, files, format_))
    if not any(shard.tensors or shard.truncated for shard in shards):
        msg = f"{path} holds no tensors: name the file of the weights"
        raise CheckpointError(msg)
    return Checkpoint(
        source=source,
        path=path,
        kind="file",
        model_type=read_config(path).model_type,
        format=format_,
        shards=shards,
        index=None,
        missing=(),
        truncated=_truncated(shards),
        duplicates=(),
        formats=(format_,),
    )


def _of_components(path: Path, kind: Kind, source: str) -> Checkpoint:
    """Read a pipeline: the weights of all parts, with the part's name before each tensor's name."""
    shards: list[Shard] = []
    parts = components(path, kind)
    with collector_paused():
        for part in parts:
            for shard in _read_shards(path, part.files, format_of(part.files[0])):
                tensors = tuple(each._replace(name=f"{part.name}.{each.name}") for each in shard.tensors)
                shards.append(replace(shard, tensors=tensors))
    formats = tuple(dict.fromkeys(format_of(shard.path) for shard in shards))
    return Checkpoint(
        source=source,
        path=path,
        kind=kind,
        model_type=class_of_pipeline(path) if kind == "diffusers" else kind,
        format=formats[0],
        shards=tuple(shards),
        index=None,
        missing=(),
        truncated=_truncated(shards),
        duplicates=(),
        formats=formats,
        component_names=tuple(part.name for part in parts),
    )


def _truncated(shards: Sequence[Shard]) -> tuple[str, ...]:
    return tuple(shard.path.name for shard in shards if shard.truncated)


def _read_shards(path: Path, files: Sequence[Path], format_: FileFormat) -> Iterator[Shard]:
    """Read all shards. Raises ``CheckpointError`` when all together exceed a limit."""
    work_bytes = tensors = 0
    for each in files:
        found = read_as(each, format_)
        work_bytes += found.work_bytes
        tensors += len(found.tensors)
        if tensors > MAX_TENSORS:
            raise out_of_bounds(path, f"more than {MAX_TENSORS:,} tensors")
        if work_bytes > MAX_HEADERS_BYTES:
            raise out_of_bounds(path, f"headers of more than {MAX_HEADERS_BYTES:,} bytes")
        yield Shard(path=each, file_bytes=found.file_bytes, tensors=found.tensors, truncated=found.truncated)
