"""What becomes of one tensor when its checkpoint is loaded: it stays mapped, or something new is made of it."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from pytest_llmmem.models.checkpoints.tensors import ALL_DTYPES, Tensor, nbytes_of

Quantisation = Literal["int8", "nf4"]

_NOT_LINEAR: Final = re.compile(
    r"embed|(?<![^._])(wte|wpe|shared|lm_head|relative_attention_bias|[a-z]*norm|router)[._]"
)
"""Modules with weights of two axes that bitsandbytes leaves alone: embeddings, and the head that gives the logits."""

_EXPERT: Final = re.compile(r"(?P<layer>.+\.experts)\.\d+\.")
"""One expert of a mixture: ``model.layers.3.block_sparse_moe.experts.7.w1.weight``."""


class Kind(NamedTuple):
    """Tensors of which every load makes the same: there are far fewer kinds than tensors."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    """Of one, in the file."""

    is_linear: bool

    layer: str | None
    """The one that it is an expert of; ``None`` for all else."""

    @classmethod
    def of(cls, tensor: Tensor) -> "Kind":
        expert = _EXPERT.match(tensor.name)
        return cls(tensor.dtype, tensor.shape, tensor.nbytes, is_linear(tensor), expert and expert["layer"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What it costs to have a tensor of one kind in the model. Sizes are bytes."""

    kind: Kind

    made_bytes: int = 0
    """New memory that holds it afterwards; 0 when it stays mapped."""

    work_bytes: int = 0
    """Memory while it is made, its own included."""

    is_cast: bool = False

    stacked_in: str | None = None
    """The layer with whose other experts it becomes one tensor."""

    @property
    def is_mapped(self) -> bool:
        """Nothing is made of it."""
        return self.made_bytes == 0

    @property
    def nbytes(self) -> int:
        """What it takes in the model."""
        return self.made_bytes or self.kind.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedShard:
    """What becomes of all the tensors of one file. Sizes are bytes."""

    nbytes: int
    """What they take in the model."""

    made_bytes: int
    """New memory among that."""

    file_bytes: int
    """What they take in the file."""

    read_bytes: int
    """Pages of the file that become resident, because something is made of them."""

    work_bytes: int
    """Memory while one of them is made, beyond what is kept of it: of the one that takes most."""

    stacked_bytes: Mapping[str, int]
    """Experts that are stacked, by layer: those that are cast are there twice meanwhile."""

    is_viewed: bool
    """Something of it stays mapped."""


def convert_shard(
    kinds: Mapping[Kind, int], dtype: str, *, quantisation: Quantisation | None, stacks_experts: bool
) -> ConvertedShard:
    """What a load into ``dtype`` makes of a file of so many tensors of each kind."""
    conversions = [
        (convert(kind, dtype, quantisation=quantisation, stacks_experts=stacks_experts), count)
        for kind, count in kinds.items()
    ]
    stacked: Counter[str] = Counter()
    for each, count in conversions:
        if each.stacked_in is not None:
            stacked[each.stacked_in] += count * each.made_bytes * (2 if each.is_cast else 1)
    return ConvertedShard(
        nbytes=sum(each.nbytes * count for each, count in conversions),
        made_bytes=sum(each.made_bytes * count for each, count in conversions),
        file_bytes=sum(kind.nbytes * count for kind, count in kinds.items()),
        read_bytes=sum(each.kind.nbytes * count for each, count in conversions if not each.is_mapped),
        work_bytes=max((each.work_bytes - each.made_bytes for each, _ in conversions), default=0),
        stacked_bytes=stacked,
        is_viewed=any(each.is_mapped for each, _ in conversions),
    )


def convert(kind: Kind, dtype: str, *, quantisation: Quantisation | None, stacks_experts: bool) -> Conversion:
    """What a load into ``dtype`` makes of a tensor of that kind.

    ``stacks_experts`` when the experts of a layer become one tensor, which no quantiser takes for a linear layer.
    """
    stacked_in = kind.layer if stacks_experts else None
    if quantisation and kind.is_linear and stacked_in is None:
        return _quantised(kind, dtype, quantisation)
    is_cast = bool(ALL_DTYPES[kind.dtype].exponent_bits) and kind.dtype != dtype
    if not is_cast and stacked_in is None:
        return Conversion(kind=kind)
    made = nbytes_of(math.prod(kind.shape), dtype if is_cast else kind.dtype)
    return Conversion(kind=kind, made_bytes=made, work_bytes=made, is_cast=is_cast, stacked_in=stacked_in)


def is_linear(tensor: Tensor) -> bool:
    """Whether it is the weight of a linear layer that is not the model's head, told from its name and shape."""
    return (
        len(tensor.shape) == 2
        and tensor.name.endswith(".weight")
        and bool(ALL_DTYPES[tensor.dtype].exponent_bits)
        and not _NOT_LINEAR.search(tensor.name.lower())
    )


def stacking_bytes(shards: Iterable[ConvertedShard]) -> int:
    """What is needed besides while the experts of the largest layer are stacked.

    Gate and up projections, two thirds of a layer's experts, are joined after they were stacked and so are there twice.
    Where nothing is cast, the down projections are not there yet.
    """
    layers: Counter[str] = Counter()
    for shard in shards:
        layers.update(shard.stacked_bytes)
    return max(layers.values(), default=0) // 3


def _quantised(kind: Kind, dtype: str, quantisation: Quantisation) -> Conversion:
    """By bitsandbytes on a CPU: one element in 8 bits and a float32 for each row, or in 4 bits and a float32 for each 64.

    The work, in bytes per element, is what ``backends/default/ops.py`` of bitsandbytes 0.50 has at once. int8: a float16 copy,
    unless it is float16, and two float32; nf4: a float32 copy, unless it is float32, the scaled numbers, their indices, and 2.
    """
    elements = math.prod(kind.shape)
    copy = 0 if kind.dtype == dtype else nbytes_of(elements, dtype)
    if quantisation == "int8":
        made = elements + 4 * kind.shape[0]
        per_element = 8 + (0 if dtype == "float16" else 2)
    else:
        made = -(-elements // 2) + 4 * -(-elements // 64)
        per_element = 10 + (0 if dtype == "float32" else 4)
    return Conversion(kind=kind, made_bytes=made, work_bytes=copy + per_element * elements)
