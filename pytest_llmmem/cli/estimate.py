"""``llmmem estimate MODEL``: what it will need, before anything is loaded."""

from pathlib import Path
from typing import Annotated

import typer

from pytest_llmmem.cli import estimate_loads
from pytest_llmmem.cli.arguments import Json, Loads, Model, checkpoint_of
from pytest_llmmem.cli.output import print_json
from pytest_llmmem.cli.step_options import (
    CacheConfig,
    CacheImplementation,
    DoubleQuantization,
    Fits,
    Generate,
    Grid,
    MaxCacheLen,
    NewTokens,
    Rules,
    Seq,
    Train,
)
from pytest_llmmem.cli.training_arguments import (
    Accumulation,
    Autocast,
    Batch,
    Checkpointing,
    Images,
    Lora,
    LoraTarget,
    Optimizer,
    refuse,
    training_fields,
)
from pytest_llmmem.core.errors import SettingError

Dtype = Annotated[str | None, typer.Option(help="To load in, such as float16. Default: each strategy's own.")]
Transformers = Annotated[
    str | None, typer.Option(metavar="VERSION", help="Whose loader to follow. Default: the installed one's.")
]
Against = Annotated[
    Path | None, typer.Option(metavar="REPORT.json", help="Compare with the loads that a --llm-report has measured.")
]


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
    cache_implementation: CacheImplementation = None,
    cache_config: CacheConfig = None,
    max_cache_len: MaxCacheLen = None,
    optimizer: Optimizer = None,
    lora: Lora = None,
    lora_target: LoraTarget = None,
    checkpointing: Checkpointing = False,
    accumulation: Accumulation = None,
    images: Images = None,
    autocast: Autocast = None,
    device: Rules = None,
    double_quantization: DoubleQuantization = False,
    fits: Fits = None,
    grid: Grid = None,
    json: Json = False,
) -> None:
    """Memory that a model will need: to be loaded, read from its headers, or to be trained, computed from its config."""
    training = training_fields(
        optimizer=optimizer,
        lora=lora,
        lora_target=lora_target,
        checkpointing=checkpointing,
        accumulation=accumulation,
        images=images,
        autocast=autocast,
    )
    generating = {
        "new_tokens": new_tokens,
        "cache_implementation": cache_implementation,
        "cache_config": cache_config,
        "max_cache_len": max_cache_len,
    }
    steps = {"batch": batch, "seq": seq, "device": device, "fits": fits, "grid": grid}
    if not train and not generate:
        refuse(steps | training | generating, why="needs --train or --generate")
    elif train and generate:
        raise SettingError("--train and --generate: write one of them")
    else:
        refuse(training if generate else generating, why=f"needs --{'train' if generate else 'generate'}")
        given = {"batch_size": batch, "seq_len" if train else "prompt": seq} | generating | training
        from pytest_llmmem.cli.estimate_steps import estimate_step

        estimate_step(
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
