"""Workers of a session that is itself a rank under ``torchrun``."""

import contextlib
from typing import Final

_GROUPS: Final = 1000
"""Process groups that one test may make."""


def keep_groups_apart(job: int) -> None:
    """Have the process groups of this worker find none of those that an earlier one has left in the launcher's store.

    The store outlives the workers. Keys in it begin with the number of the group, which each process counts for itself,
    so that a worker would meet the addresses of a dead one. ``job`` is the same on every rank.
    """
    with contextlib.suppress(ImportError, AttributeError):  # a torch without distributed, or that counts in another way
        from torch.distributed import distributed_c10d

        distributed_c10d._world.group_count = max(distributed_c10d._world.group_count, job * _GROUPS)  # noqa: SLF001 -- it has no public name
