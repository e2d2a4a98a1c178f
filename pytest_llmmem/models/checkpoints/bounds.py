"""Limits on how much of a checkpoint is read: more than any known model needs, and at most 2 s and 300 MB of work.

``bench/hostile.py`` measures the worst checkpoint within these limits.
"""

from typing import Final

from pytest_llmmem.core.errors import CheckpointError

MAX_FILES: Final = 100_000
"""Files in the folder. A checkpoint has some hundreds, and a training may leave more beside it."""

MAX_SHARDS: Final = 2_000
"""Shards that an index names. Each is opened; published models have some hundreds at most."""

MAX_TENSORS: Final = 180_000
"""Tensors in all shards together. The largest mixtures of experts have some 140,000."""

MAX_KINDS: Final = 20_000
"""Groups of tensors of equal dtype, shape and layer in an estimate. 140,000 tensors make some hundreds of groups."""

MAX_HEADERS_BYTES: Final = 30_000_000
"""Header bytes of all shards together. A header takes 130 bytes for each tensor."""

MAX_READ_BYTES: Final = 20_000_000
"""Bytes read of one file: its header, its pickle, or the whole index or config. An index takes 90 bytes for each tensor.

The safetensors library allows headers of 100 MB. As Python objects they would take gigabytes.
"""

MAX_JSON_MARKS: Final = 2_000_000
"""Brackets, commas, colons and quotes. A header has 25 for each tensor, an index 6. A parser allocates up to 300 bytes for 4."""

MAX_JSON_DEPTH: Final = 64
"""Nesting depth of objects and arrays. A config has up to 6, and a parser uses some of the C stack for each level."""

MAX_JSON_DIGITS: Final = 100
"""Consecutive digits. Some configs have 10**30. The time to read a number grows with the square of its digits."""

MAX_OPERATIONS: Final = 3_000_000
"""Operations of a pickle. A tensor takes 32, and one operation may allocate 80 bytes."""

MAX_DIMENSIONS: Final = 64
"""Dimensions of a tensor. numpy and most operations of torch have the same limit."""

MAX_SIZE: Final = 2**63 - 1
"""Largest dimension, and largest tensor in bytes: torch uses signed 64-bit integers."""


class TooMuch(ValueError):  # noqa: N818 -- there is no error in what is refused, only too much of it
    """The limit that was exceeded: ``"more than 64 objects and arrays in each other"``."""


def out_of_bounds(where: object, what: object) -> CheckpointError:
    """The error for a file that is refused only because of its size."""
    return CheckpointError(f"{where} has {what}: no model that is known needs so much, so look where it came from")
