"""The text of ``llmmem estimate``: a pure function of its JSON document."""

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from pytest_llmmem.cli.output import print_facts, print_findings, print_table
from pytest_llmmem.core.sizes import format_size


def print_estimate(document: Mapping[str, Any]) -> None:
    """Print the document as tables."""
    print_facts(_facts(document))
    if document["quantization"] is None:
        header = ("load", "dtype", "model", "unreclaimable", "resident", "first forward")
        print_table(header, map(_load_row, document["loads"]))
    else:
        typer.echo(
            f"no peak is predicted: the library that reads {document['quantization']} decides what becomes of the weights"
        )
    print_table(("training", "parameters", "gradients", "Adam", "together"), map(_training_row, document["training"]))
    if document["measured"]:
        header = ("test", "load", "count", "predicted", "measured", "ratio")
        print_table(header, map(_measured_row, document["measured"]))
    print_findings(finding["text"] for finding in document["findings"])


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "model", document["source"]
    yield "parameters", f"{document['parameters']:,}"
    if document["quantization"] is not None:
        yield "quantized", document["quantization"]
    yield "weights", f"{format_size(document['weights_bytes'])}, mostly {document['dtype']}"
    sizes = {dtype: size for dtype, size in document["bytes_in"].items() if size is not None}
    yield "in another dtype", ", ".join(f"{format_size(size)} {dtype}" for dtype, size in sizes.items())
    yield "largest shard", format_size(document["largest_shard_bytes"])
    yield "largest layer", format_size(document["largest_layer_bytes"])
    yield "loader", f"transformers {document['transformers']}, without an accelerator"
    yield "training", "Adam, without activations"


def _load_row(load: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = ("weights_bytes", "peak_bytes", "peak_resident_bytes", "forward_resident_bytes")
    return load["load"], load["dtype"], *(_size(load[name]) for name in sizes)


def _training_row(training: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = ("parameters_bytes", "gradients_bytes", "optimizer_bytes", "total_bytes")
    return training["precision"], *(_size(training[name]) for name in sizes)


def _measured_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = (_size(row["predicted_bytes"]), _size(row["measured_bytes"]))
    return row["nodeid"], row["load"], row["count"], *sizes, f"{row['ratio']:.2f}"


def _size(size_bytes: int | None) -> str:
    return "not predicted" if size_bytes is None else format_size(size_bytes)
