"""Memory estimates of a load, from a checkpoint's headers: no weight is read, no library is imported.

Every tensor is followed through the load (``conversions``), and the load through its shards (``peak_models``). The rules
are read from the loaders' sources and compared with measurements by ``bench/estimates.py``.

The estimate is host memory, without an accelerator and with glibc's mmap threshold fixed (``--llm-malloc=steady``): with the
default, quantized loads and mixtures of experts may need several times more. Activations are not included.
"""

import importlib.metadata
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from pytest_llmmem.models.checkpoints.bounds import MAX_KINDS, out_of_bounds
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.model_config import ModelConfig, read_config
from pytest_llmmem.models.checkpoints.tensors import DTYPES, nbytes_of
from pytest_llmmem.models.estimates.conversions import Kind, Quantisation, convert_shard
from pytest_llmmem.models.estimates.peak_models import (
    Need,
    Shards,
    assigned,
    copied,
    offloaded,
    read_by_tensor,
    streamed,
)

LOADS: Final = (
    "default", "sharded", "empty", "auto", "bfloat16", "float16", "int8", "nf4", "offload", "float32", "naive",
)  # fmt: skip
"""The strategies that can be estimated, in the order of ``strategies``."""

DTYPES_TO_LOAD_IN: Final = ("float64", "float32", "float16", "bfloat16")

_FROM_CONFIG: Final = ("naive", "sharded", "empty")
"""Strategies that build the model first, in the dtype of its config."""

_ALWAYS: Final = Need(peak=15_000_000, resident=20_000_000, forward=25_000_000)
"""Memory of the libraries' own code and objects in any load, measured. The libraries are imported before."""

_HEAD: Final = re.compile(r"lm_head|embed_out|output_projection")
_BLOCK: Final = re.compile(r".+?\.\d+\.")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loader:
    """The behavior of ``from_pretrained`` from a version on."""

    since: tuple[int, ...]

    dtype: str | None
    """The default dtype; ``None`` is the checkpoint's own."""

    quantised_dtype: str | None
    """The default dtype of the unquantized weights in a quantized load."""

    maps_all_shards: bool
    """Whether all shards stay mapped until the end of the load; else one after the other."""

    stacks_experts: bool
    """Whether the experts of a layer are merged into one tensor."""


_LOADERS: Final = (
    # core_model_loading.py
    _Loader(since=(5,), dtype=None, quantised_dtype=None, maps_all_shards=True, stacks_experts=True),
    # modeling_utils.py, since low_cpu_mem_usage is the default
    _Loader(since=(4, 51), dtype="float32", quantised_dtype="float16", maps_all_shards=False, stacks_experts=False),
)
_READS_ON_WINDOWS: Final = (5, 17)
"""The first version that reads each tensor on Windows. Older versions map shards there too, and commit counts all of them."""


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
    version = transformers or _installed()
    loader = _loader(version)
    config = read_config(checkpoint.path)
    kinds = [Counter(map(Kind.of, shard.tensors)) for shard in checkpoint.shards]
    if sum(map(len, kinds)) > MAX_KINDS:
        raise out_of_bounds(checkpoint.path, f"tensors of more than {MAX_KINDS:,} kinds")
    untied_elements = _untied_elements(checkpoint, config.raw)
    found = []
    for load in loads:
        target = dtype or _usual_dtype(load, loader or _LOADERS[-1]) or _own_dtype(checkpoint, config)
        quantisation = cast("Quantisation", load) if load in {"int8", "nf4"} else None
        stacks = (loader or _LOADERS[-1]).stacks_experts
        shards = [convert_shard(each, target, quantisation=quantisation, stacks_experts=stacks) for each in kinds]
        need = None
        if loader is not None and checkpoint.kind == "model" and checkpoint.quantization is None:
            if platform == "win32":
                need = _need_on_windows(load, checkpoint, shards, version)
            else:
                need = _need(load, checkpoint, shards, loader, untied_bytes=nbytes_of(untied_elements, target))
        found.append(
            Estimate(
                load=load,
                dtype=target,
                transformers=version,
                weights_bytes=_nbytes(shards),
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
    if checkpoint.kind == "file" and checkpoint.format == "gguf" and load == "default":
        return checkpoint.nbytes_in(name or "float32")
    if checkpoint.quantization is not None:
        return None
    if checkpoint.kind == "model" and load in LOADS:
        return estimate(checkpoint, load=load, dtype=name).weights_bytes
    return checkpoint.nbytes_in(name) if name else checkpoint.weights_bytes


def _need(load: str, checkpoint: Checkpoint, shards: Shards, loader: _Loader, *, untied_bytes: int) -> Need | None:
    """The growth of a strategy's load; ``None`` where it is not predicted."""
    reads_mapped = checkpoint.format == "safetensors"
    is_stacked = any(shard.stacked_bytes for shard in shards)
    if is_stacked and load in _FROM_CONFIG:
        return None  # the model has no tensor of those names: the load fails
    if load == "offload" and (is_stacked or not reads_mapped):
        return None  # offloaded weights are first written in another form
    match load:
        case "naive" | "sharded":
            state_bytes = checkpoint.weights_bytes if load == "naive" else checkpoint.largest_shard_bytes
            return copied(_nbytes(shards), state_bytes, untied_bytes=untied_bytes, reads_mapped=reads_mapped)
        case "empty":
            return streamed(shards, maps_all_shards=False) if reads_mapped else assigned(shards)
        case "offload":
            in_memory, block = _offload(checkpoint, _nbytes(shards))
            return offloaded(
                shards, in_memory_bytes=in_memory, block_bytes=block, maps_all_shards=loader.maps_all_shards
            )
        case _:
            return streamed(shards, maps_all_shards=loader.maps_all_shards)


def _need_on_windows(load: str, checkpoint: Checkpoint, shards: Shards, version: str) -> Need | None:
    """The growth on Windows, only for ``from_pretrained``: the commit of mapped files in our own recipes was not measured."""
    if (
        load in {*_FROM_CONFIG, "offload"}
        or checkpoint.format != "safetensors"
        or _numbers(version) < _READS_ON_WINDOWS
    ):
        return None
    return read_by_tensor(shards)


def _offload(checkpoint: Checkpoint, weights_bytes: int) -> tuple[int, int]:
    """Bytes that stay in memory (the embedding and as many whole blocks as fit), and bytes of a block.

    ``offload_arguments`` allows half of the weights and the largest layer, and accelerate reserves a block.
    """
    blocks: Counter[str] = Counter()
    embedding = 0
    for tensor in checkpoint.tensors:
        if match := _BLOCK.match(tensor.name):
            blocks[match[0]] += tensor.nbytes
        else:
            embedding = max(embedding, tensor.nbytes)
    block = max(blocks.values(), default=0)
    room = checkpoint.weights_bytes // 2 + checkpoint.largest_layer_bytes - block
    whole_blocks = max(0, room - embedding) // max(1, block)
    scale = weights_bytes / max(1, checkpoint.weights_bytes)
    return min(weights_bytes, round((embedding + whole_blocks * block) * scale)), round(block * scale)


def _untied_elements(checkpoint: Checkpoint, config: Mapping[str, Any]) -> int:
    """Elements of an output head that shares the embedding's weights: it is separate until the end of initialization."""
    if not config.get("tie_word_embeddings") or any(_HEAD.search(tensor.name) for tensor in checkpoint.tensors):
        return 0
    shape = (config.get("vocab_size"), config.get("hidden_size"))
    return max((each.elements for each in checkpoint.tensors if each.shape == shape), default=0)


def _usual_dtype(load: str, loader: _Loader) -> str | None:
    """The default dtype of a strategy; ``None`` is the checkpoint's own."""
    if load in DTYPES_TO_LOAD_IN:
        return load
    if load in _FROM_CONFIG:
        return None
    return loader.quantised_dtype if load in {"int8", "nf4"} else loader.dtype


def _own_dtype(checkpoint: Checkpoint, config: ModelConfig) -> str:
    """The dtype of the config, or else of most weights."""
    return config.dtype if config.dtype in DTYPES else checkpoint.dtype or "float32"


def _nbytes(shards: Shards) -> int:
    return sum(shard.nbytes for shard in shards)


def _installed() -> str:
    try:
        return importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return ".".join(map(str, _LOADERS[0].since))


def _loader(version: str) -> _Loader | None:
    """The loader of that version; ``None`` before the oldest known one. Raises ``ValueError`` for an invalid version."""
    numbers = _numbers(version)
    if not numbers:
        msg = f"{version!r} is not a version of transformers: write one like 5.23.0"
        raise ValueError(msg)
    return next((loader for loader in _LOADERS if numbers >= loader.since), None)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
