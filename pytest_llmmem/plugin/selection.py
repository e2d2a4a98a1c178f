"""Selection of the tests that run in a worker."""

from typing import Final

import pytest

from pytest_llmmem.plugin.options import MARKERS
from pytest_llmmem.plugin.state import MODELS

_FIXTURES: Final = frozenset(
    {
        "loaded_model",
        "first_load_that_fits",
        "train_step",
        "generate_step",
        "predicted_step",
        "memory_budget",
        "memory_growth",
        "training_memory",
        "process_group",
    }
)
_LOADING: Final = _FIXTURES - {"memory_budget", "memory_growth", "training_memory", "process_group"}


def is_marked(item: pytest.Item) -> bool:
    """Whether a test carries one of our markers, or uses a fixture that measures."""
    names = getattr(item, "fixturenames", ())
    if MODELS not in item.config.stash and not _LOADING.isdisjoint(names):
        return False  # it will be skipped, and that needs no worker
    return not _FIXTURES.isdisjoint(names) or any(item.get_closest_marker(name) for name in MARKERS)
