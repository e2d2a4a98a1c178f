"""Peak memory of a load, by its way of reading the shards. All sizes are bytes."""

from collections.abc import Sequence
from typing import NamedTuple

from pytest_llmmem.models.estimates.conversions import ConvertedShard, stacking_bytes

Shards = Sequence[ConvertedShard]


class Need(NamedTuple):
    """Memory growth that a load causes."""

    peak: int
    """Unreclaimable peak."""

    resident: int
    """Resident peak, mapped files included."""

    forward: int
    """Resident memory when every weight is used."""


def streamed(shards: Shards, *, maps_all_shards: bool) -> Need:
    """``from_pretrained``: new tensors stay, and pages that were read stay resident until their shard is unmapped.

    A shard is unmapped at the end of the load, or before the next one is mapped, unless the model has a view of it.
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
    """Copies into an allocated model, from a state dict of ``state_bytes`` at a time.

    ``untied_bytes`` is memory of the model beyond its weights during initialization. ``reads_mapped`` when the state dict has
    mapped tensors instead of tensors in memory.
    """
    initialized = weights_bytes + untied_bytes
    both = weights_bytes + state_bytes
    return Need(initialized if reads_mapped else max(initialized, both), max(initialized, both), weights_bytes)


def assigned(shards: Shards) -> Need:
    """Shards read into memory one after the other. Each tensor becomes the model's own where it is not cast."""
    held = peak = 0
    for shard in shards:
        held += shard.nbytes
        peak = max(peak, held + shard.read_bytes)
    return Need(peak, peak, held)


def offloaded(shards: Shards, *, in_memory_bytes: int, block_bytes: int, maps_all_shards: bool) -> Need:
    """``from_pretrained`` with ``in_memory_bytes`` of the weights; the others pass through memory block by block when used."""
    nbytes = sum(shard.nbytes for shard in shards)
    made = sum(shard.made_bytes for shard in shards) * in_memory_bytes // max(1, nbytes)
    reads = [shard.read_bytes for shard in shards]
    read = sum(reads) if maps_all_shards else max(reads, default=0)
    return Need(made, made + read, in_memory_bytes + block_bytes)
