"""Read a checkpoint from the headers of its files: a folder of transformers, a pipeline, or files of any name."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.bounds import MAX_HEADERS_BYTES, MAX_TENSORS, out_of_bounds
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint, Shard
from pytest_llmmem.models.checkpoints.checkpoint_folder import CheckpointFolder
from pytest_llmmem.models.checkpoints.garbage_collector import collector_paused
from pytest_llmmem.models.checkpoints.model_config import read_config
from pytest_llmmem.models.checkpoints.other_folders import (
    Kind,
    class_of_pipeline,
    components,
    kind_of,
    second_copies,
    tensor_files,
)
from pytest_llmmem.models.checkpoints.tensor_file import FileFormat, format_of, read_as


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
        model_type=read_config(path).model_type or shards[0].model_type,
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
        header = read_as(each, format_)
        work_bytes += header.work_bytes
        tensors += len(header.tensors)
        if tensors > MAX_TENSORS:
            raise out_of_bounds(path, f"more than {MAX_TENSORS:,} tensors")
        if work_bytes > MAX_HEADERS_BYTES:
            raise out_of_bounds(path, f"headers of more than {MAX_HEADERS_BYTES:,} bytes")
        yield Shard(
            path=each,
            file_bytes=header.file_bytes,
            tensors=header.tensors,
            truncated=header.truncated,
            model_type=header.model_type,
        )
