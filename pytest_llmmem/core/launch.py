"""Whether this session, or a process that a test has started, is a rank of a distributed launch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_NAMES: Final = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
"""Set by ``torchrun`` for each rank (torch.distributed.run, "Environment Variables")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One of the workers that run a test together."""

    number: int
    count: int
    """Number of all ranks."""
    folder: Path
    """Folder that only this test and its ranks use."""
    port: int
    """A free one, for a process group that the test makes by itself."""

    @property
    def files(self) -> Path:
        """The folder of what the rank leaves."""
        return self.folder / str(self.number)

    @property
    def store(self) -> Path:
        """The file by which the ranks find each other."""
        return self.folder / "store"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that ``torchrun`` would set."""
        number, count = str(self.number), str(self.count)
        return {
            "RANK": number,
            "LOCAL_RANK": number,
            "WORLD_SIZE": count,
            "LOCAL_WORLD_SIZE": count,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
        }


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
