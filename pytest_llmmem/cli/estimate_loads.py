"""The document of ``llmmem estimate`` for a load, read from the checkpoint's headers, and its tables."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pytest_llmmem.cli.output import print_facts, print_findings, print_table
from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.core.sizes import format_size

if TYPE_CHECKING:
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint


def describe(
    checkpoint: "Checkpoint", *, loads: Sequence[str] | None, dtype: str | None, transformers: str | None
) -> dict[str, Any]:
    """The JSON document of the command. Raises ``ValueError`` as ``Checkpoint.estimate``."""
    from pytest_llmmem.models.checkpoints.findings import of_shards
    from pytest_llmmem.models.estimates.estimate import estimates
    from pytest_llmmem.models.estimates.loader_versions import LOADS
    from pytest_llmmem.models.estimates.training import PRECISIONS, estimate_training

    *told, int8, nf4 = estimates(checkpoint, (*(loads or LOADS), "int8", "nf4"), dtype=dtype, transformers=transformers)
    training = [estimate_training(checkpoint.parameters, precision) for precision in PRECISIONS]
    is_plain = checkpoint.quantization is None  # what is quantized is not quantized again
    return {
        "schema": 1,
        "source": checkpoint.source,
        "path": str(checkpoint.path),
        "transformers": int8.transformers,
        "quantization": checkpoint.quantization,
        "parameters": checkpoint.parameters,
        "dtype": checkpoint.dtype,
        "weights_bytes": checkpoint.weights_bytes,
        "bytes_by_dtype": checkpoint.bytes_by_dtype,
        "largest_shard_bytes": checkpoint.largest_shard_bytes,
        "largest_layer_bytes": checkpoint.largest_layer_bytes,
        "bytes_in": {
            "float32": checkpoint.nbytes_in("float32"),
            "float16": checkpoint.nbytes_in("float16"),
            "bfloat16": checkpoint.nbytes_in("bfloat16"),
            "int8": int8.weights_bytes if is_plain else None,
            "nf4": nf4.weights_bytes if is_plain else None,
        },
        "loads": [dataclasses.asdict(each) for each in told],
        "training": [dataclasses.asdict(each) | {"total_bytes": each.total_bytes} for each in training],
        "incomplete": [*checkpoint.missing, *checkpoint.truncated],
        "measured": [],
        "findings": [{"id": finding.id, "text": f"not counted: {finding.text}"} for finding in of_shards(checkpoint)],
    }


def beside(checkpoint: "Checkpoint", report: Path, *, dtype: str | None) -> dict[str, Any]:
    """Compare with a report. Raises ``BaselineError`` if it is not a report, ``SettingError`` if it has another model."""
    from pytest_llmmem.baselines.reading import read_report
    from pytest_llmmem.cli.against import compare, explain

    session = read_report(report)
    rows = compare(checkpoint, session, dtype=dtype)
    if not rows:
        sources = sorted({test.model.source for test in session.tests if test.model}) or ["no model"]
        msg = (
            f"--against {report}: it has no load of {checkpoint.source} that can be predicted, but {', '.join(sources)}: "
            "name a report of a test with loaded_model"
        )
        raise SettingError(msg)
    measured = [dataclasses.asdict(row) | {"ratio": round(row.ratio, 3), "held": row.held} for row in rows]
    # of a load with two peaks above, the unreclaimable one tells the story
    above = {(row.nodeid, row.load): row for row in reversed(rows) if not row.held}
    findings = [{"id": "above", "text": explain(row, checkpoint, session)} for row in reversed(above.values())]
    return {"measured": measured, "findings": findings}


def show(document: Mapping[str, Any]) -> None:
    """The same for people."""
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
    yield "weights", f"{format_size(document['weights_bytes'])}, mostly {next(iter(document['bytes_by_dtype']), None)}"
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
