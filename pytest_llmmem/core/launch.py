"""Whether this session, or a process that a test has started, is a rank of a distributed launch."""

from collections.abc import Mapping
from typing import Final

_NAMES: Final = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
"""Set by ``torchrun`` for each rank (torch.distributed.run, "Environment Variables")."""


def rank_of(environment: Mapping[str, str]) -> int | None:
    """The rank of a session that a launcher has started with this environment; ``None`` when none has."""
    return _rank(environment) if environment.get("WORLD_SIZE", "").isdecimal() else None


def rank_in_launch(environment: Mapping[str, str], of_session: Mapping[str, str]) -> int | None:
    """The rank of a child in a launch of its own; ``None`` also where it has only inherited that of the session."""
    inherited = all(environment.get(name) == of_session.get(name) for name in _NAMES)
    return None if inherited else _rank(environment)


def _rank(environment: Mapping[str, str]) -> int | None:
    rank = environment.get("RANK", "")
    return int(rank) if rank.isdecimal() else None
