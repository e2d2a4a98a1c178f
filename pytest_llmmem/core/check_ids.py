"""The ids of the ready-made checks, which ``pytest_llmmem.suites`` defines: known without importing pytest."""

from typing import Final

CHECKS: Final = (
    "integrity", "duplicates", "load", "resident", "second_copy", "forward", "dtype", "meta", "quantization", "max_memory",
    "release", "second_load", "disk", "keys", "size", "save", "stays",
)  # fmt: skip
"""In the order of their tests."""
