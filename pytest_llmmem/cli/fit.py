"""``llmmem fit MODEL``: the smallest machine that a model loads and runs, or trains, on."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pytest_llmmem.cli.arguments import Json, Loads, Model, checkpoint_of
from pytest_llmmem.cli.output import print_json
from pytest_llmmem.cli.training_arguments import (
    Accumulation,
    Autocast,
    Batch,
    Checkpointing,
    Lora,
    LoraTarget,
    Optimizer,
    refuse,
    training_fields,
)
from pytest_llmmem.core.errors import CheckpointError, SettingError

if TYPE_CHECKING:
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
    from pytest_llmmem.models.steps.spec import TrainSpec

Train = Annotated[bool, typer.Option("--train", help="Run training steps after the load instead of forward passes.")]
Seq = Annotated[int | None, typer.Option("--seq", help="Tokens of each sequence. Default: 512, or what the model has.")]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify", help="Run twice more, in a memory control group, on a copy of the checkpoint."
    ),
]


def fit(
    model: Model,
    *,
    load: Loads = None,
    train: Train = False,
    batch: Batch = None,
    seq: Seq = None,
    optimizer: Optimizer = None,
    lora: Lora = None,
    lora_target: LoraTarget = None,
    checkpointing: Checkpointing = False,
    accumulation: Accumulation = None,
    autocast: Autocast = None,
    verify: Verify = True,
    json: Json = False,
) -> None:
    """Measure a load and a few steps after it, and say which size of container or machine they need."""
    from pytest_llmmem.cli.fit_output import describe, show
    from pytest_llmmem.fit.fitting import fit as fit_one
    from pytest_llmmem.fit.workload import Workload

    training = training_fields(
        optimizer=optimizer,
        lora=lora,
        lora_target=lora_target,
        checkpointing=checkpointing,
        accumulation=accumulation,
        autocast=autocast,
    )
    if not train:
        refuse({"batch": batch, "seq": seq} | training, why="needs --train")
    loads = load or ["default"]
    checkpoint = checkpoint_of(model)
    _check_loads(loads, checkpoint, train=train)
    if broken := (*checkpoint.missing, *checkpoint.truncated):
        msg = f"MODEL {model}: {', '.join(broken)} is missing or cut off: see 'llmmem inspect {model}'"
        raise CheckpointError(msg)
    step = _step(checkpoint, {"batch_size": batch, "seq_len": seq} | training) if train else None
    found = [fit_one(Workload(folder=checkpoint.path, load=name, train=step), verify=verify) for name in loads]
    if json:
        print_json(describe(model, found))
    else:
        show(model, found)
    if any(each.complaints for each in found):
        raise typer.Exit(1)


def _check_loads(loads: Sequence[str], checkpoint: "Checkpoint", *, train: bool) -> None:
    from pytest_llmmem.models.loading.strategies import STRATEGIES
    from pytest_llmmem.models.steps.spec import PREDICTED_LOADS

    for name in loads:
        if name not in STRATEGIES:
            msg = f"--load: {name!r} is not a strategy: write one of {', '.join(STRATEGIES)}"
            raise SettingError(msg)
        if train and name not in PREDICTED_LOADS:
            msg = f"--load: {name!r} leaves no model that can be trained: with --train, write one of {', '.join(PREDICTED_LOADS)}"
            raise SettingError(msg)
        if STRATEGIES[name].only_format is not None or checkpoint.format == "onnx":
            msg = f"--load: {name!r} gives no model of transformers that fit could run: see 'llmmem check {checkpoint.source}'"
            raise SettingError(msg)
        if reason := STRATEGIES[name].unavailable(checkpoint):
            msg = f"--load: {name!r}: {reason}"
            raise SettingError(msg)


def _step(checkpoint: "Checkpoint", options: Mapping[str, Any]) -> "TrainSpec":
    from pytest_llmmem.models.checkpoints.model_config import read_config
    from pytest_llmmem.models.steps.spec import TrainSpec

    given = {name: value for name, value in options.items() if value is not None}
    try:
        step = TrainSpec.parse(given)
    except ValueError as error:
        msg = f"--train: {error}"
        raise SettingError(msg) from None
    if "seq_len" in given:
        return step
    return step.within(read_config(checkpoint.path).raw.get("max_position_embeddings"))
