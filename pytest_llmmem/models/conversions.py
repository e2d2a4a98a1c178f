"""What becomes of one tensor when its checkpoint is loaded: it stays mapped, or something new is made of it."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from pytest_llmmem.models.tensors import DTYPES, Tensor, nbytes_of

Quantisation = Literal["int8", "nf4"]

_NOT_LINEAR: Final = re.compile(
    r"embed|(^|[._])(wte|wpe|shared|lm_head|relative_attention_bias|[a-z_]*norm|router)[._]", re.IGNORECASE
)
"""Modules with weights of two axes that bitsandbytes leaves alone: embeddings, and the head that gives the logits."""

_EXPERT: Final = re.compile(r"(?P<layer>.+\.experts)\.\d+\.")
"""One expert of a mixture: ``model.layers.3.block_sparse_moe.experts.7.w1.weight``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A tensor of the checkpoint, and what it costs to have it in the model. Sizes are bytes."""

    tensor: Tensor

    made_bytes: int = 0
    """New memory that holds it afterwards; 0 when it stays mapped."""

    work_bytes: int = 0
    """Memory while it is made, its own included."""

    is_cast: bool = False

    is_stacked: bool = False
    """It becomes a part of one tensor with the other experts of its layer."""

    @property
    def is_mapped(self) -> bool:
        """Nothing is made of it."""
        return self.made_bytes == 0

    @property
    def nbytes(self) -> int:
        """What it takes in the model."""
        return self.made_bytes or self.tensor.nbytes

    @property
    def read_bytes(self) -> int:
        """Pages of the file that become resident when something is made of it."""
        return 0 if self.is_mapped else self.tensor.nbytes


def convert(tensor: Tensor, dtype: str, *, quantisation: Quantisation | None, stacks_experts: bool) -> Conversion:
    """What a load into ``dtype`` makes of a tensor.

    ``stacks_experts`` when the experts of a layer become one tensor, which no quantiser takes for a linear layer.
    """
    stacked = stacks_experts and _EXPERT.match(tensor.name) is not None
    if quantisation and is_linear(tensor) and not stacked:
        return _quantised(tensor, dtype, quantisation)
    is_cast = bool(DTYPES[tensor.dtype].exponent_bits) and tensor.dtype != dtype
    if not is_cast and not stacked:
        return Conversion(tensor=tensor)
    made = nbytes_of(tensor.elements, dtype if is_cast else tensor.dtype)
    return Conversion(tensor=tensor, made_bytes=made, work_bytes=made, is_cast=is_cast, is_stacked=stacked)


def is_linear(tensor: Tensor) -> bool:
    """Whether it is the weight of a linear layer that is not the model's head, told from its name and shape."""
    return (
        len(tensor.shape) == 2
        and tensor.name.endswith(".weight")
        and bool(DTYPES[tensor.dtype].exponent_bits)
        and not _NOT_LINEAR.search(tensor.name)
    )


def stacking_bytes(conversions: Iterable[Conversion]) -> int:
    """What is needed besides while the experts of the largest layer are stacked.

    Gate and up projections, two thirds of a layer's experts, are joined after they were stacked and so are there twice.
    Where nothing is cast, the down projections are not there yet.
    """
    layers: Counter[str] = Counter()
    for each in conversions:
        if each.is_stacked and (match := _EXPERT.match(each.tensor.name)):
            layers[match["layer"]] += each.made_bytes * (2 if each.is_cast else 1)
    return max(layers.values(), default=0) // 3


def _quantised(tensor: Tensor, dtype: str, quantisation: Quantisation) -> Conversion:
    """By bitsandbytes on a CPU: one element in 8 bits and a float32 for each row, or in 4 bits and a float32 for each 64.

    The work, in bytes per element, is what ``backends/default/ops.py`` of bitsandbytes 0.50 has at once. int8: a float16 copy,
    unless it is float16, and two float32; nf4: a float32 copy, unless it is float32, the scaled numbers, their indices, and 2.
    """
    elements = tensor.elements
    copy = 0 if tensor.dtype == dtype else nbytes_of(elements, dtype)
    if quantisation == "int8":
        made = elements + 4 * tensor.shape[0]
        per_element = 8 + (0 if dtype == "float16" else 2)
    else:
        made = -(-elements // 2) + 4 * -(-elements // 64)
        per_element = 10 + (0 if dtype == "float32" else 4)
    return Conversion(tensor=tensor, made_bytes=made, work_bytes=copy + per_element * elements)
