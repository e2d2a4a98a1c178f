"""``llmmem estimate MODEL --train`` and ``--generate``: what a step will take, from the config alone."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer

from pytest_llmmem.cli.arguments import naming_argument
from pytest_llmmem.cli.output import print_facts, print_findings, print_json, print_table
from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.core.sizes import format_size, parse_size
from pytest_llmmem.core.steps import KINDS, StepMemory

if TYPE_CHECKING:
    from pytest_llmmem.models.steps.predictor import Prediction
    from pytest_llmmem.models.steps.spec import GenerateSpec, PredictRequest, TrainSpec


def estimate_step(
    model: str,
    kind: Literal["train", "generate"],
    given: Mapping[str, Any],
    *,
    load: Sequence[str],
    json: bool,
    **options: Any,
) -> None:
    """Predict a step and print it. Exit status 1 when not even one sequence fits."""
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
    if isinstance(step, TrainSpec) and "seq_len" not in given:
        request = dataclasses.replace(request, step=step.within(request.config.get("max_position_embeddings")))
    prediction = predict_apart(request)
    document = describe(model, request, prediction)
    if json:
        print_json(document)
    else:
        show(document, prediction)
    if document["findings"]:
        raise typer.Exit(1)


def make_request(
    model: str,
    step: "TrainSpec | GenerateSpec",
    *,
    load: str,
    dtype: str | None,
    device: str,
    fits: str | None,
    grid: str | None,
    quantizes_scales: bool,
) -> "PredictRequest":
    """The request of the command line. Raises ``SettingError`` and ``SourceError``."""
    from pytest_llmmem.models.checkpoints.model_config import read_generation_config
    from pytest_llmmem.models.sources.config_source import plain_config, source_config
    from pytest_llmmem.models.sources.source import parse_source
    from pytest_llmmem.models.steps.spec import FLOATS, PREDICTED_LOADS, GenerateSpec, PredictRequest

    if load not in PREDICTED_LOADS:
        msg = f"--load {load}: a step is predicted after one of {', '.join(PREDICTED_LOADS)}"
        raise SettingError(msg)
    if device not in {"cpu", "cuda"}:
        msg = f"--device {device}: a step is predicted by the rules of cpu or cuda: write one of them"
        raise SettingError(msg)
    with naming_argument(f"MODEL {model}", source=model):
        source = parse_source(model, base=Path.cwd())
        config = source_config(source)
        if isinstance(source.target, Path) and isinstance(step, GenerateSpec):
            step = step.caching_as(read_generation_config(source.target))
    chosen = dtype or (load if load in FLOATS else None) or config.dtype or "float32"
    if chosen not in FLOATS:
        msg = f"--dtype {chosen}: write one of {', '.join(FLOATS)}"
        raise SettingError(msg)
    return PredictRequest(
        config=plain_config(config),
        step=step,
        dtype=chosen,
        quantization=cast("Literal['int8', 'nf4']", load) if load in {"int8", "nf4"} else None,
        quantizes_scales=quantizes_scales,
        device=cast("Literal['cpu', 'cuda']", device),
        limits=() if fits is None else (_size(fits),),
        grid=() if grid is None else parse_grid(grid),
    )


def parse_grid(text: str) -> tuple[tuple[int, int], ...]:
    """``1,2,4x512,1024``: each batch size with each length. Raises ``SettingError``."""
    sides = [[int(each) if each.isdigit() else 0 for each in side.split(",")] for side in text.split("x")]
    if len(sides) != 2 or not all(number for side in sides for number in side):
        msg = f"--grid {text}: write batch sizes, an x, and lengths, like 1,2,4x512,1024"
        raise SettingError(msg)
    return tuple((batch, length) for batch in sides[0] for length in sides[1])


def describe(model: str, request: "PredictRequest", prediction: "Prediction") -> dict[str, Any]:
    """The JSON document of the command."""
    memory = prediction.memory
    findings = [
        {"id": "fits", "text": _too_large(request, memory, each.limit_bytes)}
        for each in prediction.fits
        if each.batch_size == 0
    ]
    return {
        "schema": 1,
        "source": model,
        "dtype": request.dtype,
        "quantization": request.quantization,
        "device": request.device,
        "step": dataclasses.asdict(request.step),
        "peak_bytes": memory.peak_bytes,
        **prediction.to_json(),
        "findings": findings,
    }


def show(document: Mapping[str, Any], prediction: "Prediction") -> None:
    """The same for people."""
    memory = prediction.memory
    print_facts(_facts(document, memory))
    reserved = ("reserved",) if memory.reserved_bytes is not None else ()
    print_table(("phase", "peak", *reserved, *KINDS, "module", "operation"), map(_row, memory.shown_phases))
    if memory.kept:
        print_table(("kept for backward", "bytes"), ((each.place, format_size(each.bytes)) for each in memory.kept))
    if prediction.grid:
        lengths = list(dict.fromkeys(cell.seq_len for cell in prediction.grid))
        cells = {(cell.batch_size, cell.seq_len): cell.peak_bytes for cell in prediction.grid}
        batches = dict.fromkeys(cell.batch_size for cell in prediction.grid)
        print_table(
            ("batch", *(f"length {length:,}" for length in lengths)),
            ((str(batch), *(_cell(cells[batch, length]) for length in lengths)) for batch in batches),
        )
    print_findings(finding["text"] for finding in document["findings"])


def _facts(document: Mapping[str, Any], memory: StepMemory) -> Iterator[tuple[str, str]]:
    step = document["step"]
    yield "model", document["source"]
    weights = document["quantization"] or document["dtype"]
    yield "weights", f"{format_size(memory.parameters_bytes)}, {weights}"
    yield "step", ", ".join(f"{name} {value}" for name, value in step.items() if value not in (None, False, [], ()))
    yield "rules", f"{document['device']}; tensors only: a process or a card holds more (docs/training.md)"
    peak = memory.peak
    if peak is not None:
        yield "peak", f"{format_size(peak.peak_bytes)} in {peak.phase} of step {peak.step}"
    if memory.reserved_bytes is not None:
        yield "reserved", f"{format_size(memory.reserved_bytes)} by a model of torch's allocator, not run on a card"
    for fits in document["fits"]:
        limit = format_size(fits["limit_bytes"])
        if fits["batch_size"]:
            length = f"; largest length {fits['seq_len']:,}" if fits["seq_len"] else ""
            yield f"fits {limit}", f"largest batch {fits['batch_size']:,}{length}"
        else:
            yield f"fits {limit}", "no batch"


def _row(phase: Any) -> tuple[str, ...]:
    sizes = (format_size(phase.by_kind[kind]) if phase.by_kind.get(kind) else "" for kind in KINDS)
    reserved = () if phase.reserved_bytes is None else (format_size(phase.reserved_bytes),)
    return f"{phase.phase} {phase.step}", format_size(phase.peak_bytes), *reserved, *sizes, phase.module, phase.op


def _cell(peak_bytes: int | None) -> str:
    return "too long" if peak_bytes is None else format_size(peak_bytes)


def _too_large(request: "PredictRequest", memory: StepMemory, limit_bytes: int) -> str:
    weights, limit = memory.parameters_bytes, format_size(limit_bytes)
    if weights > limit_bytes:
        smaller = "" if request.quantization == "nf4" else ", or --load nf4"
        return f"--fits {limit}: the weights alone take {format_size(weights)}: write more{smaller}"
    can_checkpoint = getattr(request.step, "checkpointing", None) is False  # generating has no such field
    advice = f"write more{', or --checkpointing' if can_checkpoint else ''}, or a shorter --seq"
    return f"--fits {limit}: batch 1 takes more at length {request.step.seq_len:,}: {advice}"


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        msg = f"--fits: {error}"
        raise SettingError(msg) from None
