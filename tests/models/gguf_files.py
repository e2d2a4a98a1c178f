"""GGUF files that llama.cpp loads: a Llama of zeros, with the tokenizer that the library requires."""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

TEXT, ARRAY = 8, 9
HIDDEN, INNER, HEADS, CONTEXT = 64, 128, 4, 512
VOCABULARY = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *(f"t{n}" for n in range(61)))
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
"""Kinds of tokens in llama.h."""

Value = int | float | str | Sequence[int] | Sequence[float] | Sequence[str]


def write_llama(path: Path) -> int:
    """Write a Llama with one layer in float32. Returns the bytes of its weights."""
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * 61]
    values: dict[str, Value] = {
        "general.architecture": "llama",
        "llama.context_length": CONTEXT,
        "llama.embedding_length": HIDDEN,
        "llama.block_count": 1,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": HIDDEN // HEADS,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": VOCABULARY,
        "tokenizer.ggml.scores": [0.0] * len(VOCABULARY),
        "tokenizer.ggml.token_type": kinds,
    }
    shapes = dict(_shapes())
    path.write_bytes(_header(values, shapes))
    size = sum(4 * math.prod(shape) for shape in shapes.values())
    with path.open("ab") as file:
        file.write(bytes(size))
    return size


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """By name, the fastest dimension first. Each is a whole number of 32 bytes long."""
    yield from (("token_embd.weight", (HIDDEN, len(VOCABULARY))), ("output_norm.weight", (HIDDEN,)))
    yield from ((f"blk.0.attn_{part}.weight", (HIDDEN, HIDDEN)) for part in ("q", "k", "v", "output"))
    yield from ((f"blk.0.ffn_{part}.weight", (HIDDEN, INNER)) for part in ("gate", "up"))
    yield "blk.0.ffn_down.weight", (INNER, HIDDEN)
    yield from ((f"blk.0.{part}_norm.weight", (HIDDEN,)) for part in ("attn", "ffn"))


def _header(values: Mapping[str, Value], shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(values))
    header += b"".join(_text(name) + _value(value) for name, value in values.items())
    offset = 0
    for name, shape in shapes.items():
        header += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
        offset += 4 * math.prod(shape)
    return header + bytes(-len(header) % 32)


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _value(value: Value) -> bytes:
    """A value after the number of its type. llama.cpp wants unsigned numbers, and signed ones in lists."""
    match value:
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", TEXT) + _text(value)
        case [str(), *_]:
            return struct.pack("<IIQ", ARRAY, TEXT, len(value)) + b"".join(map(_text, map(str, value)))
        case [int(), *_]:
            return struct.pack(f"<IIQ{len(value)}i", ARRAY, 5, len(value), *value)
    return struct.pack(f"<IIQ{len(value)}f", ARRAY, 6, len(value), *value)
