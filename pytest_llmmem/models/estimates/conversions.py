"""The effect of a load on one tensor: it stays mapped, or a new tensor is made of it."""

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
"""Modules with two-dimensional weights that bitsandbytes does not quantize: embeddings, and the output head."""

_EXPERT: Final = re.compile(r"(?P<layer>.+\.experts)\.\d+\.(?P<is_down_first>\w+_proj\.)?")
"""One expert of a mixture: ``model.layers.3.block_sparse_moe.experts.7.w1.weight``, or ``...mlp.experts.7.down_proj.weight``."""


class Kind(NamedTuple):
    """A group of tensors that every load treats alike: there are far fewer groups than tensors."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    """Bytes of one tensor in the file."""

    is_linear: bool

    layer: str | None
    """The layer of an expert; ``None`` for other tensors."""

    is_down_first: bool = False
    """Whether the expert's down projection is stacked before the others: they are stacked in the order of their names."""

    @classmethod
    def of(cls, tensor: Tensor) -> "Kind":
        expert = _EXPERT.match(tensor.name)
        return cls(
            tensor.dtype,
            tensor.shape,
            tensor.nbytes,
            is_linear(tensor),
            expert and expert["layer"],
            bool(expert and expert["is_down_first"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """The cost of a tensor of one kind in the model. Sizes are bytes."""

    kind: Kind

    made_bytes: int = 0
    """New memory for the result; 0 when the tensor stays mapped."""

    work_bytes: int = 0
    """Memory during the conversion, including the result."""

    is_cast: bool = False

    stacked_in: str | None = None
    """The layer whose experts are merged into one tensor."""

    @property
    def is_mapped(self) -> bool:
        """Whether the tensor stays mapped."""
        return self.made_bytes == 0

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor in the model."""
        return self.made_bytes or self.kind.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedShard:
    """The conversion of all tensors of one file. Sizes are bytes."""

    nbytes: int
    """Bytes of the tensors in the model."""

    made_bytes: int
    """New memory in ``nbytes``."""

    file_bytes: int
    """Bytes of the tensors in the file."""

    read_bytes: int
    """Pages of the file that become resident, because tensors are converted from them."""

    work_bytes: int
    """Largest temporary memory of one conversion, beyond its result."""

    stacked_bytes: Mapping[str, int]
    """Stacked experts, by layer. They are in memory twice meanwhile when they are cast, or the down projections come first."""

    is_viewed: bool
    """Whether a tensor of the file stays mapped."""


def convert_shard(
    kinds: Mapping[Kind, int], dtype: str, *, quantisation: Quantisation | None, stacks_experts: bool
) -> ConvertedShard:
    """The conversion to ``dtype`` of a file with this number of tensors of each kind."""
    conversions = [
        (convert(kind, dtype, quantisation=quantisation, stacks_experts=stacks_experts), count)
        for kind, count in kinds.items()
    ]
    stacked: Counter[str] = Counter()
    for each, count in conversions:
        if each.stacked_in is not None:
            is_twice = each.is_cast or each.kind.is_down_first
            stacked[each.stacked_in] += count * each.made_bytes * (2 if is_twice else 1)
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
    """The conversion to ``dtype`` of a tensor of that kind.

    ``stacks_experts`` when the experts of a layer are merged into one tensor. No quantizer treats it as a linear layer.
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
    """Whether it is the weight of a linear layer other than the output head, by its name and shape."""
    return (
        len(tensor.shape) == 2
        and tensor.name.endswith(".weight")
        and bool(ALL_DTYPES[tensor.dtype].exponent_bits)
        and not _NOT_LINEAR.search(tensor.name.lower())
    )


def stacking_bytes(shards: Iterable[ConvertedShard]) -> int:
    """Additional memory while the experts of the largest layer are stacked.

    Gate and up projections, two thirds of a layer's experts, are concatenated after stacking and so are in memory twice.
    Where nothing is cast, and the down projections come last, those are not in memory yet.
    """
    layers: Counter[str] = Counter()
    for shard in shards:
        layers.update(shard.stacked_bytes)
    return max(layers.values(), default=0) // 3


def _quantised(kind: Kind, dtype: str, quantisation: Quantisation) -> Conversion:
    """Quantization by bitsandbytes on a CPU: int8 with a float32 for each row, or 4 bits with a float32 for each 64 elements.

    The work, in bytes per element, follows ``backends/default/ops.py`` of bitsandbytes 0.50. int8: a float16 copy,
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
