"""What the plugin keeps on pytest's config, under typed keys."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from pytest_llmmem.plugin.settings import Settings

if TYPE_CHECKING:
    from pytest_llmmem.plugin.models import Models
    from pytest_llmmem.workers.child import Voice

SETTINGS: Final = pytest.StashKey[Settings]()
MODELS: "pytest.StashKey[Models | None]" = pytest.StashKey()
"""``None`` without ``--llm-model``: nothing of it is imported then."""
VOICE: "pytest.StashKey[Voice]" = pytest.StashKey()
"""Only there inside a worker."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Said by a worker once ``loaded_model`` is there."""

    mapped_bytes: int | None
    """Weights that are mapped and not resident yet."""
