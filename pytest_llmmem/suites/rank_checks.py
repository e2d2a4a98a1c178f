"""Checks of a load that spreads a model over ranks: ``--llm-load=tensor_parallel --llm-ranks=2``.

Each runs in every rank. The limits stand between transformers versions that load so and versions that do not: see
``docs/checks.md``.
"""

import os
from collections.abc import Callable
from typing import Any, Final

import pytest

from pytest_llmmem import probes
from pytest_llmmem.core.sizes import format_beside, format_size
from pytest_llmmem.models.loading.loaded import LoadedModel

__all__ = ["ranks", "test_group", "test_rank0_only", "test_rank_load", "test_rank_share"]

RANK_SLACK: Final = 64 * 10**6
"""Bytes that a load may take in each rank beside its part of the weights."""
REPLICATED: Final = 1.05
"""Limit of a rank's weights, relative to its share: norms are whole in each rank, an embedding or a head is not."""
UNREAD: Final = 0.1
"""Share of the weights that a rank may hold for a moment although another rank reads them."""
TOGETHER: Final = 1.25
"""Limit of the load's memory in all ranks together, relative to the weights that they hold."""


@pytest.fixture
def ranks() -> int:
    """Number of ranks; skips a check of ranks where there is one process."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count < 2:
        pytest.skip("needs a load over ranks: --llm-load=tensor_parallel --llm-ranks=2")
    return count


def test_rank_load(ranks: int, loaded_model: LoadedModel) -> None:
    """A rank needs what it keeps and one tensor: it does not load the whole model first."""
    if loaded_model.peak is None:
        pytest.skip("nothing is measured with --llm-isolate=none")
    largest = max(tensor.nbytes for tensor in loaded_model.checkpoint.tensors)
    limit, used = loaded_model.nbytes + largest + RANK_SLACK, loaded_model.peak.peak_bytes
    if used > limit:
        allowed, needed, _ = format_beside(limit, used)
        pytest.fail(
            f"the load needed {needed}, more than what the rank keeps, the largest tensor and 64 MB ({allowed}): "
            f"it keeps {format_size(loaded_model.nbytes)} of {format_size(_whole(loaded_model))} over {ranks} ranks",
            pytrace=False,
        )


def test_rank_share(ranks: int, loaded_model: LoadedModel) -> None:
    """A rank holds its share of the weights, and little that the others hold too."""
    limit = round(REPLICATED * _whole(loaded_model) / ranks)
    if loaded_model.nbytes > limit:
        allowed, held, _ = format_beside(limit, loaded_model.nbytes)
        pytest.fail(
            f"the rank holds {held}, more than its share of {format_size(_whole(loaded_model))} over {ranks} ranks and 5% "
            f"({allowed}): weights that are whole on every rank, as the embedding and the head before transformers 5.23",
            pytrace=False,
        )


def test_rank0_only(ranks: int, rank: int, loaded_model: LoadedModel) -> None:
    """Where rank 0 alone reads the checkpoint, no other rank makes a whole model to receive its part."""
    if loaded_model.load != "fsdp_rank0":
        pytest.skip("needs a load that rank 0 alone reads: --llm-load=fsdp_rank0")
    if loaded_model.peak is None:
        pytest.skip("nothing is measured with --llm-isolate=none")
    whole = _whole(loaded_model)
    largest = max(tensor.nbytes for tensor in loaded_model.checkpoint.tensors)
    limit = loaded_model.nbytes + largest + round(UNREAD * whole) + RANK_SLACK
    used = loaded_model.peak.peak_bytes
    if rank > 0 and used > limit:
        allowed, needed, _ = format_beside(limit, used)
        pytest.fail(
            f"the load needed {needed}, more than what the rank keeps, the largest tensor, a tenth of the weights and 64 MB "
            f"({allowed}), although rank 0 alone reads them: it keeps {format_size(loaded_model.nbytes)} of {format_size(whole)} "
            f"over {ranks} ranks",
            pytrace=False,
        )


def test_group(ranks: int, load_anew: Callable[[], LoadedModel]) -> None:
    """All ranks together need little more than the weights: pages of the shards that they share count once."""
    before = _proportional()
    loaded = load_anew()
    loaded.touch()
    own = _peak_bytes(loaded) + max(0, _proportional() - before)
    needed, held = _sum([own, loaded.nbytes])
    limit = round(TOGETHER * held) + ranks * RANK_SLACK
    if needed > limit:
        allowed, used, _ = format_beside(limit, needed)
        pytest.fail(
            f"the load needed {used} in {ranks} ranks together, more than a quarter above what they hold and 64 MB each "
            f"({allowed}): they hold {format_size(held)}",
            pytrace=False,
        )


def _whole(loaded: LoadedModel) -> int:
    """The weights in the dtype that they were loaded in."""
    return loaded.checkpoint.nbytes_in(str(loaded.dtype).removeprefix("torch."))


def _peak_bytes(loaded: LoadedModel) -> int:
    return loaded.peak.peak_bytes if loaded.peak else 0


def _proportional() -> int:
    """Mapped pages of this process; a page that k processes share counts 1/k."""
    tree = probes.shared_once([os.getpid()])
    return tree.resident_bytes - tree.unreclaimable_bytes


def _sum(numbers: list[int]) -> Any:
    """The same of all ranks together."""
    import torch
    from torch import distributed

    total = torch.tensor(numbers)
    distributed.all_reduce(total)
    return total.tolist()
