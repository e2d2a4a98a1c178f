"""The ids of the ready-made checks, which ``pytest_llmmem.suites`` defines: known without importing pytest."""

from typing import Final

CHECKS: Final = (
    "integrity", "duplicates", "load", "resident", "second_copy", "forward", "dtype", "meta", "quantization", "max_memory",
    "keys", "size", "save", "stays", "group", "rank0_only", "rank_load", "rank_share", "release",
    "second_load", "disk",
)  # fmt: skip
"""Ids of the checks, in the order of their tests."""

STEP_CHECKS: Final = (
    "checkpointing_takes_effect", "accumulation_costs_one_batch", "optimizer_state", "only_adapter_trains",
    "no_growth_after_step_2", "eval_frees", "logits", "kv_cache",
)  # fmt: skip
"""The ids of the checks of steps, in the order of ``pytest_llmmem.suites.step_checks``."""
