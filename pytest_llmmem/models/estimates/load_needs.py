"""The memory that a strategy's load needs: the way in which it reads the shards of a checkpoint."""

import re
from collections import Counter
from typing import Final

from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.estimates.loader_versions import FROM_CONFIG, Loader, numbers_of
from pytest_llmmem.models.estimates.peak_models import (
    Need,
    Shards,
    assigned,
    copied,
    offloaded,
    read_by_tensor,
    streamed,
)

_READS_ON_WINDOWS: Final = (5, 17)
"""The first version that reads each tensor on Windows. Older versions map shards there too, and commit counts all of them."""

_BLOCK: Final = re.compile(r".+?\.\d+\.")


def need_of(load: str, checkpoint: Checkpoint, shards: Shards, loader: Loader, *, untied_bytes: int) -> Need | None:
    """The growth of a strategy's load; ``None`` where it is not predicted."""
    reads_mapped = checkpoint.format == "safetensors"
    is_stacked = any(shard.stacked_bytes for shard in shards)
    if is_stacked and load in FROM_CONFIG:
        return None  # the model has no tensor of those names: the load fails
    if load == "offload" and (is_stacked or not reads_mapped):
        return None  # offloaded weights are first written in another form
    match load:
        case "naive" | "sharded":
            state_bytes = checkpoint.weights_bytes if load == "naive" else checkpoint.largest_shard_bytes
            return copied(nbytes_of_model(shards), state_bytes, untied_bytes=untied_bytes, reads_mapped=reads_mapped)
        case "empty":
            return streamed(shards, maps_all_shards=False) if reads_mapped else assigned(shards)
        case "offload":
            in_memory, block = _offload(checkpoint, nbytes_of_model(shards))
            return offloaded(
                shards, in_memory_bytes=in_memory, block_bytes=block, maps_all_shards=loader.maps_all_shards
            )
        case _:
            return streamed(shards, maps_all_shards=loader.maps_all_shards)


def need_on_windows(load: str, checkpoint: Checkpoint, shards: Shards, version: str) -> Need | None:
    """The growth on Windows, only for ``from_pretrained``: the commit of mapped files in our own recipes was not measured."""
    if (
        load in {*FROM_CONFIG, "offload"}
        or checkpoint.format != "safetensors"
        or numbers_of(version) < _READS_ON_WINDOWS
    ):
        return None
    return read_by_tensor(shards)


def _offload(checkpoint: Checkpoint, weights_bytes: int) -> tuple[int, int]:
    """Bytes that stay in memory (the embedding and as many whole blocks as fit), and bytes of a block.

    ``offload_arguments`` allows half of the weights and the largest layer, and accelerate reserves a block.
    """
    blocks: Counter[str] = Counter()
    embedding = 0
    for tensor in checkpoint.tensors:
        if match := _BLOCK.match(tensor.name):
            blocks[match[0]] += tensor.nbytes
        else:
            embedding = max(embedding, tensor.nbytes)
    block = max(blocks.values(), default=0)
    room = checkpoint.weights_bytes // 2 + checkpoint.largest_layer_bytes - block
    whole_blocks = max(0, room - embedding) // max(1, block)
    scale = weights_bytes / max(1, checkpoint.weights_bytes)
    return min(weights_bytes, round((embedding + whole_blocks * block) * scale)), round(block * scale)


def nbytes_of_model(shards: Shards) -> int:
    """Bytes of the loaded model."""
    return sum(shard.nbytes for shard in shards)
