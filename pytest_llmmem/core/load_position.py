"""Position in a load: the tensor and the shard that are being read."""

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_llmmem.core.printable import excerpt


@dataclass(frozen=True, slots=True)
class LoadPosition:
    """The shard and tensor that a load read last."""

    shard: str
    """File name of the shard."""
    tensor: str
    """Name in the checkpoint; empty while a whole shard is read, or used after its file was closed."""
    serial: int
    """Grows with every note of one worker."""


def describe_position(shard: str, tensor: str, shards: Sequence[str]) -> str:
    """``shard 2 of 6, `model.layers.11.mlp.down_proj.weight```: a place for people.

    ``shards`` are the file names of the checkpoint's shards in their order. A checkpoint's only file, and a file that is
    not one of its shards, are called by their names.
    """
    known = len(shards) > 1 and shard in shards
    file = f"shard {shards.index(shard) + 1} of {len(shards)}" if known else excerpt(shard)
    return f"{file}, `{excerpt(tensor, limit=200)}`" if tensor else file
