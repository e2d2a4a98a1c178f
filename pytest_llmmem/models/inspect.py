"""What is wrong with a checkpoint, told from its headers and its index."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.models.checkpoint import Checkpoint

WITHOUT_CONFIG: Final = "config.json is not there, and no load knows the model's class without it: fetch it"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    id: str
    text: str
    """What, and what to do about it, in one line."""


def findings(checkpoint: Checkpoint) -> tuple[Finding, ...]:
    """Shards that are missing or cut off, weights that are never read, and what the index has wrong."""
    return (*_of_files(checkpoint), *_of_index(checkpoint))


def _of_files(checkpoint: Checkpoint) -> Iterator[Finding]:
    if not (checkpoint.path / "config.json").exists():
        yield Finding("config", WITHOUT_CONFIG)
    for name in checkpoint.missing:
        strangers = _strangers(checkpoint, Path(name).suffix)
        renamed = f", or give {_some(strangers)}, which no index names, its name back" if strangers else ""
        yield Finding("missing", f"{name} is not there, and the index names it: fetch it{renamed}")
    for shard in checkpoint.shards:
        if shard.truncated:
            is_ = f"is cut off after {shard.file_bytes} bytes, its header promises more"
            yield Finding("truncated", f"{shard.path.name} {is_}: fetch it again")
    if checkpoint.duplicates:
        wasted = sum((checkpoint.path / name).stat().st_size for name in checkpoint.duplicates)
        names = _some(checkpoint.duplicates)
        yield Finding(
            "duplicates",
            f"{names} ({format_size(wasted)}): no load reads it beside {checkpoint.format} files: remove it",
        )


def _strangers(checkpoint: Checkpoint, suffix: str) -> list[str]:
    """Files of a kind that belong to no load: a missing shard may be among them under another name."""
    known = {*checkpoint.duplicates, *(shard.path.name for shard in checkpoint.shards)}
    return sorted(path.name for path in checkpoint.path.glob(f"*{suffix}") if path.name not in known)


def _of_index(checkpoint: Checkpoint) -> Iterator[Finding]:
    """An index names the file of each tensor, and the bytes of them all."""
    if checkpoint.index is None:
        return
    index = json.loads(checkpoint.index.read_text(encoding="utf-8"))
    name, weight_map = checkpoint.index.name, index["weight_map"]
    again = "fetch it again, or write it anew with save_pretrained"
    whole = {shard.path.name: {each.name for each in shard.tensors} for shard in checkpoint.shards if shard.tensors}
    misplaced = [tensor for tensor, file in weight_map.items() if file in whole and tensor not in whole[file]]
    if misplaced:
        where = f"{_some(misplaced)} in a file that does not hold {'it' if len(misplaced) == 1 else 'them'}"
        yield Finding("index", f"{name} looks for {where}: {again}")
    unnamed = [tensor for tensors in whole.values() for tensor in tensors if tensor not in weight_map]
    if unnamed:
        yield Finding("index", f"{name} does not name {_some(sorted(unnamed))}: {again}")
    total = _total_size(index)
    if total is not None and len(whole) == len(checkpoint.shards) and not checkpoint.missing:
        held = sum(shard.tensor_bytes for shard in checkpoint.shards)
        if total != held:
            yield Finding("index", f"{name} says total_size {total}, the shards hold {held} bytes: {again}")


def _total_size(index: Mapping[str, Any]) -> int | None:
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return int(total) if isinstance(total, int | float) else None


def _some(names: list[str] | tuple[str, ...]) -> str:
    """``"a, b, c and 5 more"``."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def architecture(folder: Path) -> str | None:
    """The class that ``config.json`` names first; ``None`` when it names none."""
    config = folder / "config.json"
    if not config.exists():
        return None
    return next(iter(json.loads(config.read_text(encoding="utf-8")).get("architectures") or ()), None)
