"""In how many workers a test runs at once."""

import os

import pytest

from pytest_llmmem.core.errors import MarkerError
from pytest_llmmem.core.launch import rank_of
from pytest_llmmem.plugin.collect.loads import find_strategy, load_of
from pytest_llmmem.plugin.markers import InWorker
from pytest_llmmem.plugin.run.trials import FITTING
from pytest_llmmem.plugin.settings import Settings


def ranks_of(item: pytest.Item, in_worker: InWorker | None, settings: Settings) -> int:
    """The marker's number, or that of ``--llm-ranks`` where the test needs ranks, else 1. Raises ``MarkerError``."""
    ranks = in_worker.ranks if in_worker else None
    where = f"in_worker(ranks={ranks})"
    if ranks is None and settings.ranks is not None and _needs_ranks(item):
        ranks, where = settings.ranks, f"--llm-ranks={settings.ranks}"
    if ranks is None or ranks == 1:
        return 1
    if rank_of(os.environ) is not None:
        msg = f"{where}: this session is a rank itself (RANK and WORLD_SIZE are set): start pytest without torchrun"
        raise MarkerError(msg)
    if FITTING in getattr(item, "fixturenames", ()):
        msg = f"{where}: {FITTING} tries loads in one worker: let the test use loaded_model, or leave ranks out"
        raise MarkerError(msg)
    return ranks


def _needs_ranks(item: pytest.Item) -> bool:
    names = getattr(item, "fixturenames", ())
    if "process_group" in names:
        return True
    try:
        return "loaded_model" in names and find_strategy(item.config, load_of(item).strategy).needs_ranks
    except ValueError:
        return False  # its load complains
