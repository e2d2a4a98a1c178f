"""How much of a checkpoint is read: more than any known model has, and little enough to take 2 s and 300 MB at most.

``bench/hostile.py`` measures what the worst checkpoint within these bounds takes.
"""

from typing import Final

from pytest_llmmem.core.errors import CheckpointError

MAX_FILES: Final = 100_000
"""In the folder. A checkpoint has some hundreds, and a training may leave more beside it."""

MAX_SHARDS: Final = 2_000
"""That an index names. Each is opened; published models have some hundreds at most."""

MAX_TENSORS: Final = 180_000
"""Of all shards. The largest mixtures of experts have some 140,000."""

MAX_KINDS: Final = 20_000
"""Of tensors that an estimate tells apart, by dtype, shape and layer: 140,000 tensors are of some hundreds."""

MAX_HEADERS_BYTES: Final = 30_000_000
"""Of the headers of all shards: one takes 130 bytes for each tensor."""

MAX_READ_BYTES: Final = 20_000_000
"""Of a file: its header, or its pickle, or the whole index or config. An index takes 90 bytes for each tensor.

The safetensors library has a limit of 100 MB for its headers: as objects of Python they would take gigabytes.
"""

MAX_JSON_MARKS: Final = 2_000_000
"""Brackets, commas, colons and quotes. A header has 25 for each tensor, an index 6; a parser makes up to 300 bytes of 4."""

MAX_JSON_DEPTH: Final = 64
"""Objects and arrays in each other. A config has up to 6, and a parser takes a part of the C stack for each."""

MAX_JSON_DIGITS: Final = 100
"""In a row. Configs have had 10**30, and the time to read a number grows with the square of its digits."""

MAX_OPERATIONS: Final = 3_000_000
"""Of a pickle: a tensor takes 32, and one may leave 80 bytes of memory behind."""

MAX_DIMENSIONS: Final = 64
"""Of a tensor, in numpy and in most operations of torch."""

MAX_SIZE: Final = 2**63 - 1
"""Of a dimension, and of a tensor in bytes: torch counts in signed 64 bits."""


class TooMuch(ValueError):  # noqa: N818 -- there is no error in what is refused, only too much of it
    """What is out of bounds: ``"more than 64 objects and arrays in each other"``."""


def out_of_bounds(where: object, what: object) -> CheckpointError:
    """The error about what is refused for its size alone."""
    return CheckpointError(f"{where} has {what}: no model that is known needs so much, so look where it came from")
