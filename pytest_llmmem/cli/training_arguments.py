"""The options that describe a training step, for the commands that predict or measure one."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from pytest_llmmem.core.errors import SettingError

Batch = Annotated[int | None, typer.Option("--batch", help="Sequences at once. Default: 1.")]
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
Images = Annotated[
    int | None, typer.Option("--images", help="Pictures in each sequence, for LLaVA's kind. Default: 0.")
]
Autocast = Annotated[str | None, typer.Option("--autocast", metavar="DTYPE", help="torch.autocast in this dtype.")]


def training_fields(
    *,
    optimizer: str | None,
    lora: int | None,
    lora_target: list[str] | None,
    checkpointing: bool,
    accumulation: int | None,
    autocast: str | None,
    images: int | None = None,
) -> dict[str, Any]:
    """Fields of ``TrainSpec`` beside its batch; ``None`` where an option was not given."""
    return {
        "optimizer": optimizer,
        "lora": lora,
        "lora_targets": tuple(lora_target or ()) or None,
        "checkpointing": checkpointing or None,
        "accumulation": accumulation,
        "images": images,
        "autocast": autocast,
    }


def refuse(options: Mapping[str, Any], *, why: str) -> None:
    """Raise ``SettingError`` for the first option that was given."""
    for name, value in options.items():
        if value is not None:
            option = "lora-target" if name == "lora_targets" else name.replace("_", "-")
            msg = f"--{option} {why}"
            raise SettingError(msg)
