"""Defects of a checkpoint, found in its headers, its index and its config."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_llmmem.core.printable import excerpt, some_of
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.checkpoint_folder import CheckpointFolder
from pytest_llmmem.models.checkpoints.garbage_collector import collector_paused
from pytest_llmmem.models.checkpoints.index_file import is_inside, read_index
from pytest_llmmem.models.checkpoints.model_config import read_config

WITHOUT_CONFIG: Final = "config.json is not there, and no load knows the model's class without it: fetch it"

_AGAIN: Final = "fetch it again, or write it anew with save_pretrained"
_MANY: Final = 12
"""Number of files that get a finding each; all further files share one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect of a checkpoint."""

    id: str
    text: str
    """The defect and its remedy, in one line."""


def findings(checkpoint: Checkpoint, *, needs_config: bool = True) -> tuple[Finding, ...]:
    """Missing and truncated shards, unused weights, and errors in the index and the config.

    ``needs_config`` is false for a loader of the user's own, which may know the model without a config.
    """
    with collector_paused():
        return (
            *_of_config(checkpoint.path, needs_config=needs_config and checkpoint.kind == "model"),
            *of_shards(checkpoint),
            *_of_duplicates(checkpoint),
            *_of_index(checkpoint),
        )


def of_shards(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Findings about missing and truncated shards."""
    yield from _of_missing(checkpoint)
    truncated = [shard for shard in checkpoint.shards if shard.truncated]
    for shard in truncated[:_MANY]:
        is_ = f"is cut off after {shard.file_bytes} bytes, its header promises more"
        yield Finding("truncated", f"{excerpt(shard.path.name)} {is_}: fetch it again")
    if len(truncated) > _MANY:
        yield Finding("truncated", f"{len(truncated) - _MANY} more are cut off: fetch them again")


def architecture(folder: Path) -> str | None:
    """The first class that ``config.json`` names; ``None`` when it names none."""
    return next(iter(read_config(folder).class_names), None)


def _of_config(folder: Path, *, needs_config: bool) -> Iterator[Finding]:
    if needs_config and not os.path.exists(folder / "config.json"):
        yield Finding("config", WITHOUT_CONFIG)
    config = read_config(folder)
    for complaint in config.complaints:
        yield Finding("config", f"in config.json {complaint}: {_AGAIN}")
    yield from _of_repeated("config.json", config.repeated)


def _of_repeated(name: str, keys: Sequence[str]) -> Iterator[Finding]:
    if keys:
        yield Finding("repeated", f"{name} has {some_of(keys)} twice, and the last one counts: keep one")


def _of_missing(checkpoint: Checkpoint) -> Iterator[Finding]:
    outside = [name for name in checkpoint.missing if not is_inside(name)]
    if outside:
        why = "no file of this folder, and was not opened"
        yield Finding("outside", f"the index names {some_of(outside)}, which is {why}: look where the index came from")
    missing = [name for name in checkpoint.missing if is_inside(name)]
    if not missing:
        return
    strangers = _strangers(checkpoint, Path(missing[0]).suffix)
    renamed = f", or give {some_of(strangers)}, which no index names, its name back" if strangers else ""
    for name in missing[:_MANY]:
        yield Finding("missing", f"{excerpt(name)} is not there, and the index names it: fetch it{renamed}")
    if len(missing) > _MANY:
        yield Finding("missing", f"{len(missing) - _MANY} more that the index names are not there: fetch them")


def _strangers(checkpoint: Checkpoint, suffix: str) -> list[str]:
    """Files with that suffix that no load opens: a missing shard may be among them under another name."""
    known = {*checkpoint.duplicates, *(shard.path.name for shard in checkpoint.shards)}
    names = CheckpointFolder.read(checkpoint.path).names
    return [name for name in names if name.endswith(suffix) and name not in known]


def _of_duplicates(checkpoint: Checkpoint) -> Iterator[Finding]:
    if checkpoint.duplicates:
        wasted = sum(os.path.getsize(checkpoint.path / name) for name in checkpoint.duplicates)
        names = some_of(checkpoint.duplicates)
        yield Finding(
            "duplicates",
            f"{names} ({format_size(wasted)}): no load reads it beside {checkpoint.format} files: remove it",
        )


def _of_index(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Findings about the index: the file of each tensor, and the total size."""
    if checkpoint.index is None:
        return
    index = read_index(checkpoint.index)
    name, weight_map = checkpoint.index.name, index.weight_map
    yield from _of_repeated(name, index.repeated)
    whole = {shard.path.name: {each.name for each in shard.tensors} for shard in checkpoint.shards if shard.tensors}
    misplaced = [tensor for tensor, file in weight_map.items() if file in whole and tensor not in whole[file]]
    if misplaced:
        where = f"{some_of(misplaced)} in a file that does not hold {'it' if len(misplaced) == 1 else 'them'}"
        yield Finding("index", f"{name} looks for {where}: {_AGAIN}")
    unnamed = [tensor for tensors in whole.values() for tensor in tensors if tensor not in weight_map]
    if unnamed:
        yield Finding("index", f"{name} does not name {some_of(sorted(unnamed))}: {_AGAIN}")
    if index.total_size is not None and len(whole) == len(checkpoint.shards) and not checkpoint.missing:
        held = sum(shard.tensor_bytes for shard in checkpoint.shards)
        total = int(index.total_size) if math.isfinite(index.total_size) else index.total_size
        if total != held:
            yield Finding("index", f"{name} says total_size {total}, the shards hold {held} bytes: {_AGAIN}")
