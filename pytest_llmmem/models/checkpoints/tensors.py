"""The supported element types, and a tensor as a checkpoint's header describes it."""

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.bounds import MAX_DIMENSIONS, MAX_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Dtype:
    """One element type, with its name in each file format."""

    name: str
    """The name in torch and ``config.json``: ``"bfloat16"``."""

    bits: int
    """Bits per element."""

    code: str | None = None
    """The name in a safetensors header: ``"BF16"``; ``None`` for a type that such a file cannot hold."""

    storage: str | None = None
    """The class of ``torch`` that a ``.bin`` file names: ``"BFloat16Storage"``; ``None`` when there is none."""

    exponent_bits: int = 0
    """Exponent bits of a floating-point type; 0 for all others."""

    block: tuple[int, int] = (1, 0)
    """Elements of a block and its bytes, scales included, for the quantized types of GGUF; else ``(1, 0)``."""


def _block(name: str, elements: int, nbytes: int) -> Dtype:
    return Dtype(name=name, bits=-(-8 * nbytes // elements), block=(elements, nbytes))


_ALL: Final = (
    Dtype(name="float64", bits=64, code="F64", storage="DoubleStorage", exponent_bits=11),
    Dtype(name="float32", bits=32, code="F32", storage="FloatStorage", exponent_bits=8),
    Dtype(name="float16", bits=16, code="F16", storage="HalfStorage", exponent_bits=5),
    Dtype(name="bfloat16", bits=16, code="BF16", storage="BFloat16Storage", exponent_bits=8),
    Dtype(name="float8_e4m3fn", bits=8, code="F8_E4M3", exponent_bits=4),
    Dtype(name="float8_e5m2", bits=8, code="F8_E5M2", exponent_bits=5),
    Dtype(name="float8_e8m0fnu", bits=8, code="F8_E8M0"),
    Dtype(name="float4_e2m1fn_x2", bits=4, code="F4"),
    Dtype(name="complex64", bits=64, code="C64", storage="ComplexFloatStorage"),
    Dtype(name="int64", bits=64, code="I64", storage="LongStorage"),
    Dtype(name="int32", bits=32, code="I32", storage="IntStorage"),
    Dtype(name="int16", bits=16, code="I16", storage="ShortStorage"),
    Dtype(name="int8", bits=8, code="I8", storage="CharStorage"),
    Dtype(name="uint64", bits=64, code="U64"),
    Dtype(name="uint32", bits=32, code="U32"),
    Dtype(name="uint16", bits=16, code="U16"),
    Dtype(name="uint8", bits=8, code="U8", storage="ByteStorage"),
    Dtype(name="bool", bits=8, code="BOOL", storage="BoolStorage"),
)

# ggml-common.h: a block is its packed numbers and their scales
_BLOCKS: Final = (
    _block("Q4_0", 32, 18), _block("Q4_1", 32, 20), _block("Q5_0", 32, 22), _block("Q5_1", 32, 24),
    _block("Q8_0", 32, 34), _block("Q8_1", 32, 40), _block("Q2_K", 256, 84), _block("Q3_K", 256, 110),
    _block("Q4_K", 256, 144), _block("Q5_K", 256, 176), _block("Q6_K", 256, 210), _block("Q8_K", 256, 292),
    _block("IQ2_XXS", 256, 66), _block("IQ2_XS", 256, 74), _block("IQ3_XXS", 256, 98), _block("IQ1_S", 256, 50),
    _block("IQ4_NL", 32, 18), _block("IQ3_S", 256, 110), _block("IQ2_S", 256, 82), _block("IQ4_XS", 256, 136),
    _block("IQ1_M", 256, 56), _block("TQ1_0", 256, 54), _block("TQ2_0", 256, 66), _block("MXFP4", 32, 17),
)  # fmt: skip

DTYPES: Final = {dtype.name: dtype for dtype in _ALL}
ALL_DTYPES: Final = DTYPES | {dtype.name: dtype for dtype in _BLOCKS}
"""All dtypes, with those of GGUF files."""
BY_CODE: Final = {dtype.code: dtype for dtype in _ALL if dtype.code}
BY_STORAGE: Final = {dtype.storage: dtype for dtype in _ALL if dtype.storage}


class Tensor(NamedTuple):  # a dataclass takes twice as long to create, and there are many thousands
    """A tensor on disk, without its numbers."""

    name: str
    dtype: str
    """A key of ``ALL_DTYPES``."""

    shape: tuple[int, ...]
    nbytes: int

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)


def tensor(name: str, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor with that shape and its size in bytes. Raises ``ValueError`` for an impossible shape."""
    if len(shape) > MAX_DIMENSIONS:
        msg = f"{excerpt(name)} has {len(shape):,} dimensions, and a tensor up to {MAX_DIMENSIONS}"
        raise ValueError(msg)
    elements = 1
    for size in shape:
        # a header may have any value here; true is an int in Python
        if type(size) is not int or not 0 <= size <= MAX_SIZE:
            msg = f"{excerpt(name)} has a dimension of {excerpt(repr(size), limit=40)}, and not of 0 to {MAX_SIZE}"
            raise ValueError(msg)
        elements *= size
    nbytes = nbytes_of(elements, dtype)
    if nbytes > MAX_SIZE:
        msg = f"{excerpt(name)} would have more than {MAX_SIZE} bytes"
        raise ValueError(msg)
    return Tensor(name=name, dtype=dtype, shape=shape, nbytes=nbytes)


def nbytes_of(elements: int, dtype: str) -> int:
    """Bytes of that many packed elements. Raises ``ValueError`` for an unknown dtype."""
    if dtype not in ALL_DTYPES:
        msg = f"{dtype!r} is not a dtype: write one of {', '.join(DTYPES)}"
        raise ValueError(msg)
    in_block, block_bytes = ALL_DTYPES[dtype].block
    if block_bytes:
        return -(-elements // in_block) * block_bytes
    return -(-elements * ALL_DTYPES[dtype].bits // 8)
