"""Checks of a load that spreads a model over ranks: ``--llm-load=tensor_parallel --llm-ranks=2``.

Each runs in every rank. The limits stand between transformers versions that load so and versions that do not: see
``docs/checks.md``.
"""

import os
from collections.abc import Callable
from typing import Any, Final

import pytest

from pytest_llmmem import probes
from pytest_llmmem.core.printable import some_of
from pytest_llmmem.core.sizes import format_beside, format_size
from pytest_llmmem.models.loading.loaded import LoadedModel
from pytest_llmmem.models.loading.rank_share import RankShare, share_of

__all__ = ["ranks", "test_group", "test_rank0_only", "test_rank_load", "test_rank_share"]

RANK_SLACK: Final = 64 * 10**6
"""Bytes that a load may take in each rank beside its part of the weights."""
BESIDE: Final = 1.05
"""Limit of a rank's memory, relative to its share of the weights."""
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
    """A rank holds its part of each weight that the load splits, and little else."""
    loaded, whole = loaded_model, _whole(loaded_model)
    share = share_of(loaded.model, loaded.checkpoint, loaded.passed, whole_nbytes=whole, ranks=ranks)
    limit = round(BESIDE * share.nbytes) + loaded.buffer_nbytes
    if loaded.nbytes > limit:
        allowed, held, _ = format_beside(limit, loaded.nbytes)
        pytest.fail(
            f"the rank holds {held}, more than its share of {format_size(whole)} over {ranks} ranks and 5% ({allowed})"
            f"{_why(loaded, share, beyond=loaded.nbytes - limit)}",
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


def _why(loaded: LoadedModel, share: RankShare, *, beyond: int) -> str:
    """Explain the bytes beyond the share; empty where nothing is known."""
    if share.unsplit:
        return f": whole in each rank, although the load was to split them: {some_of(share.unsplit)}"
    if (beside := loaded.beside_nbytes) >= beyond:
        return f": {format_size(beside)} are in attributes beside the parameters"
    return ""


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
