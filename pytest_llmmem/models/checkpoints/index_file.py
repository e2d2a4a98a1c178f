"""The index of a sharded checkpoint: the file of each tensor. Files outside of the folder are never opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.bounds import MAX_SHARDS, out_of_bounds
from pytest_llmmem.models.checkpoints.foreign_json import read_object


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A parsed index."""

    weight_map: Mapping[str, str]
    """File names by tensor name."""

    files: tuple[str, ...]
    """File names, each once, sorted."""

    total_size: float | None
    """Bytes of all tensors; ``None`` when the index has no total. It may be infinite or ``nan``."""

    repeated: tuple[str, ...]
    """Keys that occur twice."""


def read_index(path: Path) -> Index:
    """Read an index. Raises ``CheckpointError`` for an invalid one."""
    parsed = read_object(path)
    weight_map, metadata = parsed.value.get("weight_map"), parsed.value.get("metadata")
    if not isinstance(weight_map, dict) or not weight_map:
        msg = f"{path} has no 'weight_map' from tensor names to shard files: fetch that file again"
        raise CheckpointError(msg)
    wrong = next((tensor for tensor, file in weight_map.items() if type(file) is not str), None)
    if wrong is not None:
        there = excerpt(repr(weight_map[wrong]))
        msg = f"{path} has {there} in the place of the name of a file, for {excerpt(wrong)}: fetch that file again"
        raise CheckpointError(msg)
    files = tuple(sorted(set(weight_map.values())))
    if len(files) > MAX_SHARDS:
        raise out_of_bounds(path, f"the names of {len(files):,} shards")
    total_size = metadata.get("total_size") if isinstance(metadata, dict) else None
    return Index(
        weight_map=weight_map,
        files=files,
        total_size=total_size if isinstance(total_size, int | float) else None,
        repeated=parsed.repeated,
    )


def is_inside(name: str) -> bool:
    """Whether the name is a file in the checkpoint's folder, or below it, on every platform."""
    # Windows cuts dots and spaces off the end of a name, so ".. " is ".." there
    steps = [step.strip(" .") for step in name.split("/")]
    return name.isprintable() and {"\\", ":"}.isdisjoint(name) and all(steps)
