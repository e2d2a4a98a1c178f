"""Checkpoints with the names, shapes, dtypes and shards of a real one, and holes in place of weights.

A hole is a part of a file that was never written: it reads as zeros and takes no disk space. Mapping, copying and
casting it costs the same memory as real weights.
"""

import hashlib
import json
import random
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pytest_llmmem.core.errors import SourceError
from pytest_llmmem.core.long_paths import resolved
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints import safetensors_file, torch_file
from pytest_llmmem.models.checkpoints.bounds import MAX_TENSORS
from pytest_llmmem.models.checkpoints.checkpoint_folder import WEIGHT_NAMES, Format
from pytest_llmmem.models.checkpoints.tensors import DTYPES, Tensor, tensor
from pytest_llmmem.models.sources import meta_interpreter
from pytest_llmmem.models.sources.layouts import layout

Fill = Literal["holes", "random"]

_RECIPE: Final = 2
"""Part of a spec's key: increase it when the same spec is written differently."""

PUBLISHED_METHODS: Final = ("fp8", "mxfp4")
"""Quantization methods of published checkpoints that can be made: DeepSeek-V3 and gpt-oss are the best known."""

_BLOCK_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticSpec:
    """A checkpoint to be made. Equal specs make equal checkpoints."""

    name: str
    """Name of the preset, or of the file or folder with the config."""

    config_json: str
    """The ``config.json`` as text: a spec can be hashed and sent to a worker."""

    dtype: str
    """The dtype of all floating-point tensors."""

    shard_bytes: int
    """Largest shard, unless a single tensor is larger."""

    format: Format = "safetensors"

    fill: Fill = "holes"
    """``"holes"``: zeros that take no disk space. ``"random"``: small numbers of both signs, at full size on disk."""

    @property
    def key(self) -> str:
        """A folder name that is unique to this spec."""
        return f"{self.name}-{hashlib.sha256(f'{_RECIPE} {self}'.encode()).hexdigest()[:12]}"


def write_synthetic(spec: SyntheticSpec, folder: Path) -> None:
    """Make the complete checkpoint or nothing: the folder appears when it is complete, and must not exist before.

    Imports neither torch nor transformers; a child interpreter does where the architecture is not in ``layouts``.
    Raises ``SourceError`` when no model can be built from the config.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{spec.name}-{uuid.uuid4().hex[:8]}"
    unfinished.mkdir()
    try:
        _write_weights(spec, _tensors(spec, unfinished), unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def split_into_shards(tensors: Sequence[Tensor], shard_bytes: int) -> tuple[tuple[Tensor, ...], ...]:
    """Fill one shard after the other, in order, as ``save_pretrained`` does; a tensor that is too large gets its own shard."""
    shards: list[list[Tensor]] = []
    open_shard: list[Tensor] = []
    open_bytes = 0
    for each in tensors:
        if each.nbytes > shard_bytes:
            shards.append([each])
            continue
        if open_shard and open_bytes + each.nbytes > shard_bytes:
            shards.append(open_shard)
            open_shard, open_bytes = [], 0
        open_shard.append(each)
        open_bytes += each.nbytes
    return tuple(map(tuple, (*shards, open_shard) if open_shard else shards))


def _tensors(spec: SyntheticSpec, folder: Path) -> tuple[Tensor, ...]:
    """Write the config to the folder, and name the tensors of its model."""
    config = json.loads(spec.config_json)
    # Both transformers 4 and 5 read this name; only 5 reads "dtype".
    config.pop("dtype", None)
    config["torch_dtype"] = spec.dtype
    _write_json(folder / "config.json", config)
    try:
        if shapes := layout(config):
            return tuple(tensor(name, spec.dtype, shape) for name, shape in shapes.items())
        answer = _ask_transformers(spec, folder)
        _write_json(folder / "config.json", config | {"architectures": [answer["architecture"]]})
        return tuple(tensor(name, dtype or spec.dtype, tuple(shape)) for name, dtype, shape in answer["tensors"])
    except ValueError as error:
        msg = f"synthetic:{spec.name}: no model has such a config ({error}): name the config.json of a model"
        raise SourceError(msg) from None


def _ask_transformers(spec: SyntheticSpec, folder: Path) -> dict[str, Any]:
    """Build the model without memory, in an interpreter that imports torch."""
    try:
        answer = meta_interpreter.describe(resolved(folder))
    except ValueError as error:
        raise _no_model(spec, excerpt(str(error), limit=500)) from None
    if len(answer["tensors"]) > MAX_TENSORS:
        raise _no_model(spec, f"it has more than {MAX_TENSORS:,} tensors")
    return answer


def _no_model(spec: SyntheticSpec, why: str) -> SourceError:
    return SourceError(
        f"synthetic:{spec.name}: transformers builds no model from this config ({why}): "
        "use the config.json of a model that the installed transformers knows"
    )


def _write_weights(spec: SyntheticSpec, tensors: Sequence[Tensor], folder: Path) -> None:
    write_holes = {"safetensors": safetensors_file.write_holes, "bin": torch_file.write_holes}[spec.format]
    stem, _, suffix = WEIGHT_NAMES[spec.format].rpartition(".")
    shards = split_into_shards(tensors, spec.shard_bytes)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        sharded = f"{stem}-{number:05}-of-{len(shards):05}.{suffix}"
        path = folder / (sharded if len(shards) > 1 else WEIGHT_NAMES[spec.format])
        starts = write_holes(path, shard)
        if spec.fill == "random":
            _fill(path, zip(starts, shard, strict=True))
        weight_map |= {each.name: path.name for each in shard}
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(each.nbytes for each in tensors)}, "weight_map": weight_map}
        _write_json(folder / f"{WEIGHT_NAMES[spec.format]}.index.json", index)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def _fill(path: Path, placed: Iterable[tuple[int, Tensor]]) -> None:
    """Write small numbers over the holes of the floating-point tensors; they repeat every ``_BLOCK_BYTES``."""
    with path.open("r+b") as file:
        for start, each in placed:
            if not DTYPES[each.dtype].exponent_bits:
                continue
            block = _small_numbers(each.dtype)
            file.seek(start)
            for written in range(0, each.nbytes, _BLOCK_BYTES):
                file.write(block[: each.nbytes - written])


@cache
def _small_numbers(dtype: str) -> bytes:
    """A block of numbers between 2**-6 and 2**-5 of either sign, similar to an initialization with 0.02.

    Sign and mantissa are random, the exponent is not, so that none is infinite, NaN or subnormal in any dtype.
    """
    bits, exponent_bits = DTYPES[dtype].bits, DTYPES[dtype].exponent_bits
    mantissa_bits = bits - 1 - exponent_bits
    exponent = (2 ** (exponent_bits - 1) - 1 - 6) << mantissa_bits
    random_bits = 2 ** (bits - 1) | (2**mantissa_bits - 1)

    def everywhere(pattern: int) -> int:
        return int.from_bytes(pattern.to_bytes(bits // 8, "little") * (_BLOCK_BYTES * 8 // bits), "little")

    numbers = random.Random(0).getrandbits(8 * _BLOCK_BYTES) & everywhere(random_bits) | everywhere(exponent)  # noqa: S311
    return numbers.to_bytes(_BLOCK_BYTES, "little")
