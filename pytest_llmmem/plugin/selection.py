"""Which tests run in a worker."""

from typing import Final

import pytest

from pytest_llmmem.plugin.markers import MARKERS
from pytest_llmmem.plugin.settings import Settings

OUR_FIXTURES: Final = frozenset({"loaded_model", "first_load_that_fits", "memory_budget"})


def is_isolated(item: pytest.Item, settings: Settings) -> bool:
    """Whether a test runs in a worker."""
    if settings.isolate != "marked":
        return settings.isolate == "all"
    names = getattr(item, "fixturenames", ())
    if not settings.model and not {"loaded_model", "first_load_that_fits"}.isdisjoint(names):
        return False  # it will be skipped, and that needs no worker
    return not OUR_FIXTURES.isdisjoint(names) or any(item.get_closest_marker(kind.name) for kind in MARKERS)
