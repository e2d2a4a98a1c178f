"""What the plugin keeps on pytest's config, under typed keys."""

from typing import TYPE_CHECKING, Final

import pytest

from pytest_llmmem.plugin.settings import Settings

if TYPE_CHECKING:
    from pytest_llmmem.core.records import TrialRecord
    from pytest_llmmem.plugin.models import Models
    from pytest_llmmem.workers.child import Voice
    from pytest_llmmem.workers.traces import Traces

SETTINGS: Final = pytest.StashKey[Settings]()
MODELS: "pytest.StashKey[Models | None]" = pytest.StashKey()
"""``None`` without ``--llm-model``: nothing of it is imported then."""
VOICE: "pytest.StashKey[Voice]" = pytest.StashKey()
"""Only there inside a worker."""

TRACES: "pytest.StashKey[Traces]" = pytest.StashKey()
"""Only there inside a worker."""
TRIALS: "pytest.StashKey[tuple[TrialRecord, ...]]" = pytest.StashKey()
"""Only there inside a worker: what ``first_load_that_fits`` has tried."""
