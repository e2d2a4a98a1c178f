"""Options of ``llmmem estimate`` for a step, beside those that describe a training step."""

from typing import Annotated

import typer

Train = Annotated[bool, typer.Option("--train", help="Predict a training step instead, from the config alone.")]
Generate = Annotated[bool, typer.Option("--generate", help="Predict generating text instead, from the config alone.")]
Seq = Annotated[
    int | None,
    typer.Option("--seq", help="Tokens of each sequence, or of each prompt. Default: 512, or what the model has; 128."),
]
NewTokens = Annotated[int | None, typer.Option("--new-tokens", help="Tokens that are generated. Default: 16.")]
Rules = Annotated[str | None, typer.Option("--device", help="Whose rules a step follows: cuda (default) or cpu.")]
DoubleQuantization = Annotated[
    bool, typer.Option("--double-quantization", help="Of --load nf4: quantize the scales too.")
]
Fits = Annotated[str | None, typer.Option("--fits", metavar="SIZE", help="Find the largest batch and length: 24GB.")]
Grid = Annotated[str | None, typer.Option("--grid", metavar="BATCHESxLENGTHS", help="A table: 1,2,4x512,1024.")]
