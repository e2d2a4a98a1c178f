"""Checkpoint files, opened for reading: only regular files, after following links. Opening one neither blocks nor has effects."""

import os
import stat
from pathlib import Path
from typing import Final, Self

from pytest_llmmem.core.errors import CheckpointError

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class RegularFile:
    """A regular file, open for reading. Raises ``CheckpointError`` for other kinds of file, and for unreadable files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # checked before it is opened: opening a device can have effects
            self._require_regular(os.stat(path).st_mode)
            self._file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 -- this is the context manager
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from None
        status = os.fstat(self._file.fileno())
        self.size = status.st_size
        try:
            # checked again: it may have been replaced meanwhile
            self._require_regular(status.st_mode)
        except CheckpointError:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, start: int, length: int) -> bytes:
        """Read ``length`` bytes from ``start`` on; fewer at the end of the file."""
        try:
            self._file.seek(start)
            # None where a read would block
            return self._file.read(length) or b""
        except (OSError, ValueError, OverflowError) as error:
            raise self._unreadable(error) from None

    def _require_regular(self, mode: int) -> None:
        if not stat.S_ISREG(mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "something else")
            msg = f"{self.path} is {kind} in the place of a file: remove it, or fetch the file again"
            raise CheckpointError(msg)

    def _unreadable(self, error: Exception) -> CheckpointError:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        return CheckpointError(f"{self.path} cannot be read ({why}): make it readable, or fetch it again")


def _open_without_waiting(path: str, flags: int) -> int:
    # some regular files of /proc block until there is an event
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
