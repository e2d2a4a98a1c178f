"""Options of ``llmmem estimate`` for a step, beside those that describe a training step."""

import json
from typing import Annotated, Any

import typer


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        msg = f"{text} is no JSON object: write one like " + '{"backend": "hqq", "nbits": 4}'
        raise typer.BadParameter(msg)
    return value


Train = Annotated[bool, typer.Option("--train", help="Predict a training step instead, from the config alone.")]
Generate = Annotated[bool, typer.Option("--generate", help="Predict generating text instead, from the config alone.")]
Seq = Annotated[
    int | None,
    typer.Option("--seq", help="Tokens of each sequence, or of each prompt. Default: 512, or what the model has; 128."),
]
NewTokens = Annotated[int | None, typer.Option("--new-tokens", help="Tokens that are generated. Default: 16.")]
CacheImplementation = Annotated[
    str | None,
    typer.Option("--cache-implementation", metavar="KIND", help="dynamic (default), static or quantized."),
]
CacheConfig = Annotated[
    dict[str, Any] | None,
    typer.Option("--cache-config", metavar="JSON", parser=_object, help="Settings of a quantized cache."),
]
MaxCacheLen = Annotated[
    int | None, typer.Option("--max-cache-len", metavar="TOKENS", help="Room of a static cache, at least.")
]
Rules = Annotated[str | None, typer.Option("--device", help="Whose rules a step follows: cuda (default) or cpu.")]
DoubleQuantization = Annotated[
    bool, typer.Option("--double-quantization", help="Of --load nf4: quantize the scales too.")
]
Fits = Annotated[str | None, typer.Option("--fits", metavar="SIZE", help="Find the largest batch and length: 24GB.")]
Grid = Annotated[str | None, typer.Option("--grid", metavar="BATCHESxLENGTHS", help="A table: 1,2,4x512,1024.")]
