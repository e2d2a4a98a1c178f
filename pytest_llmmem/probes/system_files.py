"""Files of the kernel, by calls that are bound when this is imported.

A test may replace those of ``os``, or ``open``, and put them back only after its phase has ended, or never.
"""

import os
import sys
from typing import Final

assert sys.platform != "win32", "there are no such files on Windows"

close: Final = os.close
list_folder: Final = os.listdir
read_at: Final = os.pread
read_link: Final = os.readlink
_open, _read, _write = os.open, os.read, os.write

_CHUNK_BYTES: Final = 2**16


def open_file(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor that no child inherits. Raises ``OSError``."""
    return _open(path, flags | os.O_CLOEXEC)


def read_file(path: str) -> bytes:
    """All of a file. Raises ``OSError``."""
    descriptor = open_file(path)
    try:
        pieces = []
        while piece := _read(descriptor, _CHUNK_BYTES):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        close(descriptor)


def write_file(path: str, data: bytes) -> None:
    """One write to a file that is there. Raises ``OSError``, which a buffered write would report in a destructor."""
    descriptor = open_file(path, os.O_WRONLY)
    try:
        _write(descriptor, data)
    finally:
        close(descriptor)
