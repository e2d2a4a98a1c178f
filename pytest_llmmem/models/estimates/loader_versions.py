"""The behavior of ``from_pretrained`` in the versions of transformers, and the strategies that are estimated by it."""

import importlib.metadata
import re
from dataclasses import dataclass
from typing import Final

LOADS: Final = (
    "default", "sharded", "empty", "auto", "bfloat16", "float16", "int8", "nf4", "offload", "float32", "naive",
)  # fmt: skip
"""The strategies that can be estimated, in the order of ``strategies``."""

DTYPES_TO_LOAD_IN: Final = ("float64", "float32", "float16", "bfloat16")

FROM_CONFIG: Final = ("naive", "sharded", "empty")
"""Strategies that build the model first, in the dtype of its config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """The behavior of ``from_pretrained`` from a version on."""

    since: tuple[int, ...]

    dtype: str | None
    """The default dtype; ``None`` is the checkpoint's own."""

    quantized_dtype: str | None
    """The default dtype of the unquantized weights in a quantized load."""

    maps_all_shards: bool
    """Whether all shards stay mapped until the end of the load; else one after the other."""

    stacks_experts: bool
    """Whether the experts of a layer are merged into one tensor."""


LOADERS: Final = (
    # core_model_loading.py
    Loader(since=(5,), dtype=None, quantized_dtype=None, maps_all_shards=True, stacks_experts=True),
    # modeling_utils.py, since low_cpu_mem_usage is the default
    Loader(since=(4, 51), dtype="float32", quantized_dtype="float16", maps_all_shards=False, stacks_experts=False),
)


def usual_dtype(load: str, loader: Loader) -> str | None:
    """The default dtype of a strategy; ``None`` is the checkpoint's own."""
    if load in DTYPES_TO_LOAD_IN:
        return load
    if load in FROM_CONFIG:
        return None
    return loader.quantized_dtype if load in {"int8", "nf4"} else loader.dtype


def installed_version() -> str:
    """The installed version of transformers, or else the oldest one with today's behavior."""
    try:
        return importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return ".".join(map(str, LOADERS[0].since))


def loader_of(version: str) -> Loader | None:
    """The loader of that version; ``None`` before the oldest known one. Raises ``ValueError`` for an invalid version."""
    numbers = numbers_of(version)
    if not numbers:
        msg = f"{version!r} is not a version of transformers: write one like 5.23.0"
        raise ValueError(msg)
    return next((loader for loader in LOADERS if numbers >= loader.since), None)


def numbers_of(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
