"""What a load holds in memory at its worst, by how it goes through the shards. All sizes are bytes."""

from collections.abc import Sequence
from typing import NamedTuple

from pytest_llmmem.models.estimates.conversions import ConvertedShard, stacking_bytes

Shards = Sequence[ConvertedShard]


class Need(NamedTuple):
    """Growth that a load causes."""

    peak: int
    """Unreclaimable, at the worst moment."""

    resident: int
    """With the resident pages of mapped files, at the worst moment."""

    forward: int
    """Resident when every weight is used."""


def streamed(shards: Shards, *, maps_all_shards: bool) -> Need:
    """``from_pretrained``: what is made stays, what is read stays resident until its shard is let go.

    A shard is let go at the end of the load, or before the next one is mapped, unless the model has a view of it.
    """
    stacking = stacking_bytes(shards)
    made = read = peak = resident = 0
    for shard in shards:
        made += shard.made_bytes
        read = shard.read_bytes + (read if maps_all_shards else 0)
        work = max(stacking, shard.work_bytes)
        peak = max(peak, made + work)
        resident = max(resident, made + work + read)
    return Need(peak, resident, made + sum(shard.file_bytes for shard in shards if shard.is_viewed))


def read_by_tensor(shards: Shards) -> Need:
    """``from_pretrained`` on Windows since 5.17: each tensor is read into memory of its own, and nothing is mapped."""
    held = sum(shard.nbytes for shard in shards)
    work = max((shard.work_bytes for shard in shards), default=0)
    peak = held + max(stacking_bytes(shards), work)
    return Need(peak, peak, held)


def copied(weights_bytes: int, state_bytes: int, *, untied_bytes: int, reads_mapped: bool) -> Need:
    """Into a model that has its memory already, from so much of the state dict at a time.

    ``untied_bytes`` has a model beyond its weights while it is initialised. ``reads_mapped`` when the state dict is of mapped
    tensors, and not read into memory.
    """
    initialised = weights_bytes + untied_bytes
    both = weights_bytes + state_bytes
    return Need(initialised if reads_mapped else max(initialised, both), max(initialised, both), weights_bytes)


def assigned(shards: Shards) -> Need:
    """Shards that are read into memory, one after the other, each tensor becoming the model's own where it is not cast."""
    held = peak = 0
    for shard in shards:
        held += shard.nbytes
        peak = max(peak, held + shard.read_bytes)
    return Need(peak, peak, held)


def offloaded(shards: Shards, *, in_memory_bytes: int, block_bytes: int, maps_all_shards: bool) -> Need:
    """``from_pretrained`` of so many bytes of the weights; the others pass through memory when used, block by block."""
    nbytes = sum(shard.nbytes for shard in shards)
    made = sum(shard.made_bytes for shard in shards) * in_memory_bytes // max(1, nbytes)
    reads = [shard.read_bytes for shard in shards]
    read = sum(reads) if maps_all_shards else max(reads, default=0)
    return Need(made, made + read, in_memory_bytes + block_bytes)
