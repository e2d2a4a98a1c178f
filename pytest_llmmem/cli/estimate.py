"""``llmmem estimate MODEL``: what it will need, before anything is loaded."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pytest_llmmem.cli.arguments import Json, Loads, Model, checkpoint_of
from pytest_llmmem.cli.output import print_facts, print_findings, print_json, print_table
from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.core.sizes import format_size

if TYPE_CHECKING:
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint

Dtype = Annotated[str | None, typer.Option(help="To load in, such as float16. Default: each strategy's own.")]
Transformers = Annotated[
    str | None, typer.Option(metavar="VERSION", help="Whose loader to follow. Default: the installed one's.")
]
Against = Annotated[
    Path | None, typer.Option(metavar="REPORT.json", help="Compare with the loads that a --llm-report has measured.")
]
Train = Annotated[bool, typer.Option("--train", help="Predict a training step instead, from the config alone.")]
Generate = Annotated[bool, typer.Option("--generate", help="Predict generating text instead, from the config alone.")]
Batch = Annotated[int | None, typer.Option("--batch", help="Sequences at once. Default: 1.")]
Seq = Annotated[
    int | None,
    typer.Option("--seq", help="Tokens of each sequence, or of each prompt. Default: 512, or what the model has; 128."),
]
NewTokens = Annotated[int | None, typer.Option("--new-tokens", help="Tokens that are generated. Default: 16.")]
Optimizer = Annotated[
    str | None,
    typer.Option("--optimizer", help="adamw (default), adamw-foreach, adamw-fused, adafactor, sgd or adamw8bit."),
]
Lora = Annotated[int | None, typer.Option("--lora", metavar="RANK", help="Train a LoRA adapter of this rank alone.")]
LoraTarget = Annotated[
    list[str] | None,
    typer.Option(
        "--lora-target", metavar="MODULE", help="Adapt these modules. Default: every linear layer but the head."
    ),
]
Checkpointing = Annotated[bool, typer.Option("--checkpointing", help="Recompute activations in the backward pass.")]
Accumulation = Annotated[
    int | None, typer.Option("--accumulation", help="Batches for each optimizer step. Default: 1.")
]
Autocast = Annotated[str | None, typer.Option("--autocast", metavar="DTYPE", help="torch.autocast in this dtype.")]
Rules = Annotated[str | None, typer.Option("--device", help="Whose rules a step follows: cuda (default) or cpu.")]
DoubleQuantization = Annotated[
    bool, typer.Option("--double-quantization", help="Of --load nf4: quantize the scales too.")
]
Fits = Annotated[str | None, typer.Option("--fits", metavar="SIZE", help="Find the largest batch and length: 24GB.")]
Grid = Annotated[str | None, typer.Option("--grid", metavar="BATCHESxLENGTHS", help="A table: 1,2,4x512,1024.")]


def estimate(
    model: Model,
    *,
    load: Loads = None,
    dtype: Dtype = None,
    transformers: Transformers = None,
    against: Against = None,
    train: Train = False,
    generate: Generate = False,
    batch: Batch = None,
    seq: Seq = None,
    new_tokens: NewTokens = None,
    optimizer: Optimizer = None,
    lora: Lora = None,
    lora_target: LoraTarget = None,
    checkpointing: Checkpointing = False,
    accumulation: Accumulation = None,
    autocast: Autocast = None,
    device: Rules = None,
    double_quantization: DoubleQuantization = False,
    fits: Fits = None,
    grid: Grid = None,
    json: Json = False,
) -> None:
    """Memory that a model will need: to be loaded, read from its headers, or to be trained, computed from its config."""
    training = {
        "optimizer": optimizer,
        "lora": lora,
        "lora_targets": tuple(lora_target or ()) or None,
        "checkpointing": checkpointing or None,
        "accumulation": accumulation,
        "autocast": autocast,
    }
    steps = {"batch": batch, "seq": seq, "device": device, "fits": fits, "grid": grid}
    if not train and not generate:
        _refuse(steps | training | {"new_tokens": new_tokens}, why="needs --train or --generate")
    elif train and generate:
        raise SettingError("--train and --generate: write one of them")
    else:
        _refuse(
            training if generate else {"new_tokens": new_tokens}, why=f"needs --{'train' if generate else 'generate'}"
        )
        given = {"batch_size": batch, "seq_len" if train else "prompt": seq, "new_tokens": new_tokens} | training
        _estimate_step(
            model,
            "train" if train else "generate",
            {name: value for name, value in given.items() if value is not None},
            load=load or ("default",),
            dtype=dtype,
            device=device or "cuda",
            fits=fits,
            grid=grid,
            quantizes_scales=double_quantization,
            json=json,
        )
        return
    checkpoint = checkpoint_of(model)
    try:
        document = describe(checkpoint, loads=load, dtype=dtype, transformers=transformers)
    except ValueError as error:
        raise SettingError(str(error)) from None
    if against is not None:
        beside = _beside(checkpoint, against, dtype=dtype)
        document |= beside | {"findings": [*document["findings"], *beside["findings"]]}
    if json:
        print_json(document)
    else:
        _print(document)
    if document["findings"]:
        raise typer.Exit(1)


def _refuse(options: Mapping[str, Any], *, why: str) -> None:
    for name, value in options.items():
        if value is not None:
            msg = f"--{name.removesuffix('s').replace('_', '-')} {why}"
            raise SettingError(msg)


def _estimate_step(
    model: str,
    kind: Literal["train", "generate"],
    given: Mapping[str, Any],
    *,
    load: Sequence[str],
    json: bool,
    **options: Any,
) -> None:
    from pytest_llmmem.cli.estimate_steps import describe, make_request, show
    from pytest_llmmem.models.steps.predictor import predict_apart
    from pytest_llmmem.models.steps.spec import GenerateSpec, TrainSpec

    if len(load) > 1:
        raise SettingError("--load: a step is predicted after one load: write it once")
    try:
        step = TrainSpec.parse(given) if kind == "train" else GenerateSpec.parse(given)
    except ValueError as error:
        msg = f"--{kind}: {error}"
        raise SettingError(msg) from None
    request = make_request(model, step, load=load[0], **options)
    longest = request.config.get("max_position_embeddings")
    if isinstance(step, TrainSpec) and "seq_len" not in given and isinstance(longest, int):
        request = dataclasses.replace(request, step=dataclasses.replace(step, seq_len=min(step.seq_len, longest)))
    prediction = predict_apart(request)
    document = describe(model, request, prediction)
    if json:
        print_json(document)
    else:
        show(document, prediction)
    if document["findings"]:
        raise typer.Exit(1)


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
    return {
        "schema": 1,
        "source": checkpoint.source,
        "path": str(checkpoint.path),
        "transformers": int8.transformers,
        "parameters": checkpoint.parameters,
        "dtype": checkpoint.dtype,
        "weights_bytes": checkpoint.weights_bytes,
        "largest_shard_bytes": checkpoint.largest_shard_bytes,
        "largest_layer_bytes": checkpoint.largest_layer_bytes,
        "bytes_in": {
            "float32": checkpoint.nbytes_in("float32"),
            "float16": checkpoint.nbytes_in("float16"),
            "bfloat16": checkpoint.nbytes_in("bfloat16"),
            "int8": int8.weights_bytes,
            "nf4": nf4.weights_bytes,
        },
        "loads": [dataclasses.asdict(each) for each in told],
        "training": [dataclasses.asdict(each) | {"total_bytes": each.total_bytes} for each in training],
        "incomplete": [*checkpoint.missing, *checkpoint.truncated],
        "measured": [],
        "findings": [{"id": finding.id, "text": f"not counted: {finding.text}"} for finding in of_shards(checkpoint)],
    }


def _beside(checkpoint: "Checkpoint", report: Path, *, dtype: str | None) -> dict[str, Any]:
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


def _print(document: Mapping[str, Any]) -> None:
    print_facts(_facts(document))
    header = ("load", "dtype", "model", "unreclaimable", "resident", "first forward")
    print_table(header, map(_load_row, document["loads"]))
    print_table(("training", "parameters", "gradients", "Adam", "together"), map(_training_row, document["training"]))
    if document["measured"]:
        header = ("test", "load", "count", "predicted", "measured", "ratio")
        print_table(header, map(_measured_row, document["measured"]))
    print_findings(finding["text"] for finding in document["findings"])


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "model", document["source"]
    yield "parameters", f"{document['parameters']:,}"
    yield "weights", f"{format_size(document['weights_bytes'])}, mostly {document['dtype']}"
    yield "in another dtype", ", ".join(f"{format_size(size)} {dtype}" for dtype, size in document["bytes_in"].items())
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
