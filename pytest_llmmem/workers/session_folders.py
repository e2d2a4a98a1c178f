"""A session's folder for what its workers leave, and the folders of sessions that were killed, offloaded weights in them."""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from filelock import FileLock

_PREFIX: Final = "llmmem-session-"
_YOUNG_S: Final = 10.0
"""A folder that was made so lately may not have been locked by its owner yet."""


class SessionFolder:
    """A temporary folder. Its owner holds a lock in it, which the kernel takes away however the owner ends."""

    def __init__(self) -> None:
        """Make a folder, and remove those without an owner."""
        for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            _remove_if_abandoned(left)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = _lock_in(self.path)
        self._lock.acquire(timeout=0)

    def remove(self) -> None:
        """Remove the folder with its contents."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_if_abandoned(folder: Path) -> None:
    from filelock import Timeout

    # of another user, or being removed by another session
    with contextlib.suppress(OSError, Timeout):
        if time.time() - folder.stat().st_mtime > _YOUNG_S:
            with _lock_in(folder).acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)  # Windows keeps a file that is open, as the lock was


def _lock_in(folder: Path) -> "FileLock":
    from filelock import FileLock

    return FileLock(folder / "owner.lock")
