"""State that the plugin keeps on pytest's config, under typed keys."""

from typing import TYPE_CHECKING, Final

import pytest

from pytest_llmmem.core.errors import LlmmemError

if TYPE_CHECKING:
    from pytest_llmmem.core.launch import Rank
    from pytest_llmmem.core.record_parts import TrialRecord
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
    from pytest_llmmem.plugin.collect.models import Models
    from pytest_llmmem.plugin.settings import Settings
    from pytest_llmmem.workers.session_files import SessionFiles

_SETTINGS: "Final[pytest.StashKey[Settings]]" = pytest.StashKey()
MODELS: "Final[pytest.StashKey[Models]]" = pytest.StashKey()
"""Only there with ``--llm-model``: nothing of it is imported without."""
SESSION_FILES: "Final[pytest.StashKey[SessionFiles]]" = pytest.StashKey()
"""Only there inside a worker."""
TIMEOUT: Final = pytest.StashKey[float]()
"""The time limit that pytest-timeout has computed for an item."""
TRIALS: "Final[pytest.StashKey[tuple[TrialRecord, ...]]]" = pytest.StashKey()
"""Only there inside a worker: what ``first_load_that_fits`` has tried."""
RANK: "Final[pytest.StashKey[Rank]]" = pytest.StashKey()
"""Only there inside a worker that is one of several ranks."""


def find_checkpoint(item: pytest.Item) -> "Checkpoint | None":
    """The checkpoint that a test is parametrized with; ``None`` without one, or where it cannot be read."""
    models = item.config.stash.get(MODELS, None)
    try:
        return models.checkpoint_of(item) if models else None
    except LlmmemError:
        return None  # the fixture raises it, inside the test


def settings_of(config: pytest.Config) -> "Settings":
    """The session's settings, resolved when they are first asked for. Raises ``SettingError``."""
    settings = config.stash.get(_SETTINGS, None)
    if settings is None:
        from pytest_llmmem.plugin.settings import resolve_settings

        settings = config.stash[_SETTINGS] = resolve_settings(config)
    return settings
