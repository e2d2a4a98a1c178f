"""Memory estimates of a load, from a checkpoint's headers: no weight is read, no library is imported.

Every tensor is followed through the load (``conversions``), and the load through its shards (``peak_models``). The rules
are read from the loaders' sources and compared with measurements by ``bench/estimates.py``.

The estimate is host memory, without an accelerator and with glibc's mmap threshold fixed (``--llm-malloc=steady``): with the
default, quantized loads and mixtures of experts may need several times more. Activations are not included.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

from pytest_llmmem.models.checkpoints.bounds import MAX_KINDS, out_of_bounds
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.model_config import ModelConfig, read_config
from pytest_llmmem.models.checkpoints.tensors import DTYPES, nbytes_of
from pytest_llmmem.models.estimates.conversions import Kind, Quantization, convert_shard
from pytest_llmmem.models.estimates.load_needs import nbytes_of_model, need_of, need_on_windows
from pytest_llmmem.models.estimates.loader_versions import (
    DTYPES_TO_LOAD_IN,
    FROM_CONFIG,
    LOADERS,
    LOADS,
    installed_version,
    loader_of,
    usual_dtype,
)
from pytest_llmmem.models.estimates.peak_models import Need
from pytest_llmmem.models.estimates.ties import tied_elements

_OF_GGUF: Final = "float32"
"""The dtype that transformers makes of a GGUF file by default."""

_ALWAYS: Final = Need(peak=15_000_000, resident=20_000_000, forward=25_000_000)
"""Memory of the libraries' own code and objects in any load, measured. The libraries are imported before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The memory growth of one way to load a checkpoint, in bytes; ``None`` is not predicted."""

    load: str
    """The strategy."""

    dtype: str
    """The dtype of the floating-point weights that are not quantized."""

    transformers: str
    """The version of transformers that is modeled."""

    weights_bytes: int
    """Bytes of the loaded model, mapped or not, with the scales of quantized weights."""

    peak_bytes: int | None
    """Unreclaimable peak during the load."""

    peak_resident_bytes: int | None
    """Resident peak during the load, pages of mapped files included."""

    forward_resident_bytes: int | None
    """Resident memory in a first forward pass that uses every weight."""


def estimate(
    checkpoint: Checkpoint,
    *,
    load: str = "default",
    dtype: str | None = None,
    transformers: str | None = None,
    platform: str = sys.platform,
) -> Estimate:
    """Estimate the memory that a strategy needs to load this checkpoint in that dtype with that version of transformers.

    The default dtype is the strategy's, the default version the installed one, or 5 where none is installed.
    No peak is predicted for transformers before 4.51, which kept masks that no header describes, on Windows before 5.17, and
    for a checkpoint that is already quantized. Raises ``ValueError`` for an unknown strategy, dtype or version,
    and ``CheckpointError`` for a checkpoint beyond the limit of ``MAX_KINDS``.
    """
    return estimates(checkpoint, (load,), dtype=dtype, transformers=transformers, platform=platform)[0]


def estimates(
    checkpoint: Checkpoint,
    loads: Sequence[str],
    *,
    dtype: str | None = None,
    transformers: str | None = None,
    platform: str = sys.platform,
) -> tuple[Estimate, ...]:
    """Estimates of several strategies, in their order. The tensors are examined once."""
    for load in loads:
        if load not in LOADS:
            msg = f"{load!r} is not a load that can be estimated: write one of {', '.join(LOADS)}"
            raise ValueError(msg)
    if dtype is not None and dtype not in DTYPES_TO_LOAD_IN:
        msg = (
            f"{dtype!r} is not a dtype to load in: write one of {', '.join(DTYPES_TO_LOAD_IN)}; int8 and nf4 are loads"
        )
        raise ValueError(msg)
    version = transformers or installed_version()
    loader = loader_of(version)
    config = read_config(checkpoint.path)
    kinds = [Counter(map(Kind.of, shard.tensors)) for shard in checkpoint.shards]
    if sum(map(len, kinds)) > MAX_KINDS:
        raise out_of_bounds(checkpoint.path, f"tensors of more than {MAX_KINDS:,} kinds")
    tied = tied_elements(checkpoint, config) if {"naive", "sharded"}.intersection(loads) else 0
    found = []
    for load in loads:
        target = dtype or usual_dtype(load, loader or LOADERS[-1]) or _own_dtype(checkpoint, config)
        quantization = cast("Quantization", load) if load in {"int8", "nf4"} else None
        stacks = (loader or LOADERS[-1]).stacks_experts
        shards = [convert_shard(each, target, quantization=quantization, stacks_experts=stacks) for each in kinds]
        need = None
        if loader is not None and checkpoint.kind == "model" and checkpoint.quantization is None:
            if platform == "win32":
                need = need_on_windows(load, checkpoint, shards, version)
            else:
                need = need_of(load, checkpoint, shards, loader, untied_bytes=nbytes_of(tied, target))
        found.append(
            Estimate(
                load=load,
                dtype=target,
                transformers=version,
                weights_bytes=nbytes_of_model(shards),
                peak_bytes=need.peak + _ALWAYS.peak if need else None,
                peak_resident_bytes=need.resident + _ALWAYS.resident if need else None,
                forward_resident_bytes=need.forward + _ALWAYS.forward if need else None,
            )
        )
    return tuple(found)


def promised_nbytes(checkpoint: Checkpoint, load: str, *, dtype: str | None = None) -> int | None:
    """Expected bytes of the loaded weights, from the strategy or the requested dtype; ``None`` where they are not predicted.

    A loader of the user's own is expected to keep the checkpoint's bytes, unless a dtype was requested.
    """
    name = None if dtype in {None, "auto"} else str(dtype).removeprefix("torch.")
    if name is not None and name not in DTYPES_TO_LOAD_IN:
        return None
    if checkpoint.adapter is not None:
        base = promised_nbytes(replace(checkpoint, adapter=None), "default" if load == "merge" else load, dtype=dtype)
        # PEFT loads adapters in float32 by default
        added = 0 if load == "merge" else checkpoint.adapter.nbytes_in("float32")
        return None if base is None else base + added
    if load == "llama_cpp":
        return checkpoint.weights_bytes
    if _is_dequantized(checkpoint, load):
        return checkpoint.nbytes_in(name or _OF_GGUF)
    if checkpoint.quantization is not None:
        return None
    if checkpoint.kind == "model" and load in LOADS:
        return estimate(checkpoint, load=load, dtype=name).weights_bytes
    return checkpoint.nbytes_in(name) if name else checkpoint.weights_bytes


def promised_dtype(checkpoint: Checkpoint, load: str) -> str | None:
    """The dtype that a strategy gives the weights when none is requested: the checkpoint's, and float32 for GGUF."""
    return _OF_GGUF if _is_dequantized(checkpoint, load) else checkpoint.dtype


def _is_dequantized(checkpoint: Checkpoint, load: str) -> bool:
    """Whether transformers loads a GGUF file: it makes plain weights of all types."""
    is_plain = load in LOADS and load not in {*FROM_CONFIG, "int8", "nf4"}
    return checkpoint.kind == "file" and checkpoint.format == "gguf" and is_plain


def _own_dtype(checkpoint: Checkpoint, config: ModelConfig) -> str:
    """The dtype of the config, or else of most weights."""
    return config.dtype if config.dtype in DTYPES else checkpoint.dtype or "float32"
