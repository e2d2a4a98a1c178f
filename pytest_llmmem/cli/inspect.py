"""``llmmem inspect MODEL``: what a checkpoint holds, and what is wrong with it."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import typer

from pytest_llmmem.cli.arguments import Json, Model, checkpoint_of
from pytest_llmmem.cli.output import print_facts, print_findings, print_json, print_table
from pytest_llmmem.core.sizes import format_size

if TYPE_CHECKING:
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint

_MANY = 12
"""Shards in the same state that are listed one by one."""


def inspect(model: Model, *, json: Json = False) -> None:
    """Contents of a checkpoint, and its defects."""
    document = describe(checkpoint_of(model))
    if json:
        print_json(document)
    else:
        print_facts(_facts(document))
        print_table(("shard", "tensors", "weights", "state"), _shard_rows(document["shards"]))
        print_findings(finding["text"] for finding in document["findings"])
    if document["findings"]:
        raise typer.Exit(1)


def describe(checkpoint: "Checkpoint") -> dict[str, Any]:
    """The JSON document of the command."""
    from pytest_llmmem.models.checkpoints.findings import architecture, findings

    shards: list[dict[str, Any]] = [
        {
            "file": shard.path.name,
            "state": "truncated" if shard.truncated else "ok",
            "tensors": len(shard.tensors),
            "weights_bytes": shard.tensor_bytes,
            "file_bytes": shard.file_bytes,
        }
        for shard in checkpoint.shards
    ]
    shards += [
        {"file": name, "state": "missing", "tensors": None, "weights_bytes": None, "file_bytes": None}
        for name in checkpoint.missing
    ]
    return {
        "schema": 1,
        "source": checkpoint.source,
        "path": str(checkpoint.path),
        "architecture": architecture(checkpoint.path),
        "model_type": checkpoint.model_type,
        "kind": checkpoint.kind,
        "quantization": checkpoint.quantization,
        "components": checkpoint.components,
        "adapter_bytes": checkpoint.adapter.weights_bytes if checkpoint.adapter else None,
        "parameters": checkpoint.parameters,
        "weights_bytes": checkpoint.weights_bytes,
        "bytes_by_dtype": checkpoint.bytes_by_dtype,
        "largest_shard_bytes": checkpoint.largest_shard_bytes,
        "largest_layer_bytes": checkpoint.largest_layer_bytes,
        "format": checkpoint.format,
        "formats": list(checkpoint.formats),
        "duplicates": list(checkpoint.duplicates),
        "index": checkpoint.index.name if checkpoint.index else None,
        "shards": sorted(shards, key=itemgetter("file")),
        "findings": [{"id": finding.id, "text": finding.text} for finding in findings(checkpoint)],
    }


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    dtypes = ", ".join(f"{format_size(nbytes)} {dtype}" for dtype, nbytes in document["bytes_by_dtype"].items())
    yield "model", document["source"]
    yield ("file" if os.path.isfile(document["path"]) else "folder"), document["path"]
    yield "architecture", document["architecture"] or document["model_type"] or "unknown: no config.json names it"
    if document["components"]:
        yield "components", ", ".join(f"{name} {format_size(size)}" for name, size in document["components"].items())
    if document["adapter_bytes"] is not None:
        yield "adapter", format_size(document["adapter_bytes"])
    if document["quantization"]:
        yield "quantized", document["quantization"]
    partial = any(shard["state"] == "missing" for shard in document["shards"])
    yield "parameters", f"{document['parameters']:,}" + (", of the shards that are there" if partial else "")
    yield "weights", f"{format_size(document['weights_bytes'])} ({dtypes})"
    yield "largest shard", format_size(document["largest_shard_bytes"])
    yield "largest layer", format_size(document["largest_layer_bytes"])
    yield "format", " and ".join(document["formats"])
    yield "index", document["index"] or "none: a single file"


def _shard_rows(shards: list[dict[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    """A row for each; of many in one state, only the first ones and how many more."""
    states = Counter(shard["state"] for shard in shards)
    hidden: dict[str, list[dict[str, Any]]] = {state: [] for state, count in states.items() if count > _MANY + 1}
    shown: Counter[str] = Counter()
    for shard in shards:
        state = shard["state"]
        if state in hidden and shown[state] == _MANY:
            hidden[state].append(shard)
            continue
        shown[state] += 1
        yield shard["file"], *_sizes([shard]), state
    for state, rest in hidden.items():
        yield f"and {len(rest)} more", *_sizes(rest), state


def _sizes(shards: list[dict[str, Any]]) -> tuple[str, str]:
    """Tensors and bytes of them all; of what is missing nothing is known."""
    if any(shard["weights_bytes"] is None for shard in shards):
        return "unknown", "unknown"
    return str(sum(shard["tensors"] for shard in shards)), format_size(sum(shard["weights_bytes"] for shard in shards))
