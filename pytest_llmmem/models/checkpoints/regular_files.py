"""Files of a checkpoint, opened for reading: regular ones, wherever links lead, and nothing that could block or act."""

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
    """An open file of bytes. Raises ``CheckpointError`` for what is no regular file, and for what cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # looked at before it is opened: opening a device can make it act
            self._require_regular(os.stat(path).st_mode)
            self._file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 -- this is the context manager
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from None
        status = os.fstat(self._file.fileno())
        self.size = status.st_size
        try:
            # and again: it may have been replaced meanwhile
            self._require_regular(status.st_mode)
        except CheckpointError:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, start: int, length: int) -> bytes:
        """The bytes from ``start`` on; fewer where the file ends."""
        try:
            self._file.seek(start)
            # None where there would be something to wait for
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
    # some regular files of /proc make their reader wait for news
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
