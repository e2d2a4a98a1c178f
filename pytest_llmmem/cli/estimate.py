"""``llmmem estimate MODEL``: what it will need, before anything is loaded."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pytest_llmmem.cli import estimate_loads
from pytest_llmmem.cli.arguments import Json, Loads, Model, checkpoint_of
from pytest_llmmem.cli.output import print_json
from pytest_llmmem.core.errors import SettingError

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
        document = estimate_loads.describe(checkpoint, loads=load, dtype=dtype, transformers=transformers)
    except ValueError as error:
        raise SettingError(str(error)) from None
    if against is not None:
        compared = estimate_loads.beside(checkpoint, against, dtype=dtype)
        document |= compared | {"findings": [*document["findings"], *compared["findings"]]}
    if json:
        print_json(document)
    else:
        estimate_loads.show(document)
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
