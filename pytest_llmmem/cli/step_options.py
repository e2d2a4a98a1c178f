"""Options of ``llmmem estimate --train`` and ``--generate``."""

from typing import Annotated

import typer

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
Images = Annotated[
    int | None, typer.Option("--images", help="Pictures in each sequence, for LLaVA's kind. Default: 0.")
]
Autocast = Annotated[str | None, typer.Option("--autocast", metavar="DTYPE", help="torch.autocast in this dtype.")]
Rules = Annotated[str | None, typer.Option("--device", help="Whose rules a step follows: cuda (default) or cpu.")]
DoubleQuantization = Annotated[
    bool, typer.Option("--double-quantization", help="Of --load nf4: quantize the scales too.")
]
Fits = Annotated[str | None, typer.Option("--fits", metavar="SIZE", help="Find the largest batch and length: 24GB.")]
Grid = Annotated[str | None, typer.Option("--grid", metavar="BATCHESxLENGTHS", help="A table: 1,2,4x512,1024.")]
