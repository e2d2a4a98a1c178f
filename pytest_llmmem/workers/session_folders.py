"""A session's folder for what its workers leave, and the folders of sessions that were killed, offloaded weights in them."""

import contextlib
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pytest_llmmem.core.long_paths import reachable
from pytest_llmmem.workers.owner_locks import claim

if TYPE_CHECKING:
    from filelock import FileLock

_PREFIX: Final = "llmmem-session-"
_LOCK: Final = "owner.lock"
_YOUNG_S: Final = 10.0
"""A folder that was made so lately may not have been locked by its owner yet."""


@dataclass(frozen=True, slots=True)
class SessionFolder:
    """A temporary folder, which its owner has locked."""

    path: Path
    _lock: "FileLock"

    @classmethod
    def create(cls) -> Self:
        """Make a folder, and remove those without an owner."""
        for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            _remove_if_abandoned(left)
        path = reachable(Path(tempfile.mkdtemp(prefix=_PREFIX)))
        lock = claim(path / _LOCK)
        assert lock is not None, "nobody else knows the folder"
        return cls(path, lock)

    def abandon(self) -> None:
        """Leave the folder to a later session, which removes it."""
        self._lock.release()

    def remove(self) -> None:
        """Remove the folder with its contents."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_if_abandoned(folder: Path) -> None:
    # of another user, or being removed by another session
    with contextlib.suppress(OSError):
        if time.time() - folder.stat().st_mtime > _YOUNG_S and (lock := claim(folder / _LOCK)):
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
            shutil.rmtree(folder, ignore_errors=True)  # Windows keeps a file that is open, as the lock was
