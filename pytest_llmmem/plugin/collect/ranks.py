"""Number of workers in which a test runs at once."""

import os
from collections.abc import Iterable

import pytest

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.errors import MarkerError
from pytest_llmmem.core.launch import rank_of
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.plugin.collect.loads import FITTING, find_strategy, load_of
from pytest_llmmem.plugin.markers import InWorker, MaxRam
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
    return ranks


def wants_process_group(item: pytest.Item) -> bool:
    """Whether the test uses the fixture ``process_group``, which needs torch in each rank."""
    return "process_group" in getattr(item, "fixturenames", ())


def split_budgets(item: pytest.Item, budgets: tuple[Budget, ...]) -> tuple[tuple[Budget, ...], tuple[Budget, ...]]:
    """Budgets of all ranks together, and of each by itself: those of memory on GPUs, which a rank has for itself, too."""
    marker = MaxRam.of(item)
    per_rank = {"max_vram"} | ({"max_ram"} if marker and marker.per == "rank" else set())
    return (
        tuple(budget for budget in budgets if budget.kind not in per_rank),
        tuple(budget for budget in budgets if budget.kind in per_rank),
    )


def check_ranks_fit(ranks: int, together: Iterable[Budget], of_rank: Iterable[Budget], *, total_bytes: int) -> None:
    """Raises ``MarkerError`` for ranks that this machine cannot hold, and for a sum that no kernel enforces."""
    for budget in of_rank:
        if budget.kind == "max_ram" and ranks * budget.limit_bytes > total_bytes:
            limit, needed, total = map(format_size, (budget.limit_bytes, ranks * budget.limit_bytes, total_bytes))
            msg = f"max_ram: {ranks} ranks of {limit} may need {needed}, and there are {total}: lower the limit or the ranks"
            raise MarkerError(msg)
    for budget in together:
        if budget.enforce != "watch":
            msg = (
                f"max_ram: enforce={budget.enforce!r} limits one process, and {ranks} ranks share this limit: "
                "write per='rank', or enforce='watch'"
            )
            raise MarkerError(msg)


def _needs_ranks(item: pytest.Item) -> bool:
    names = getattr(item, "fixturenames", ())
    if wants_process_group(item) or FITTING in names:
        return True
    try:
        return "llm_load" in names and find_strategy(item.config, load_of(item).strategy).needs_ranks
    except ValueError:
        return False  # its load complains
