"""Position of a worker's load, on a page of memory that outlives the worker, however it ends.

A message would be lost with a worker that is killed, and would cost a system call for each tensor. A page of a file that
both have mapped costs a copy of the two names, and stays as the worker's last write left it.
"""

import itertools
import mmap
import os
from pathlib import Path
from typing import Final, Self

from pytest_llmmem.core.load_position import LoadPosition
from pytest_llmmem.workers.channel import move_high

__all__ = ["LoadPosition", "LoadProgress"]

_NAME_LENGTH: Final = 100
"""Characters that are kept of a name, where the two are too long for a slot."""
_SLOT_BYTES: Final = 1024
_PAGE_BYTES: Final = 4096
_BINARY: Final = getattr(os, "O_BINARY", 0)


class LoadProgress:
    """A note of one place: a worker writes it, its parent reads it.

    Two slots are written in turn. A note begins and ends with its number, and is whole when it reads the same twice: one
    that is being written, or was cut short by the worker's death, is told from it, and the one before is still there.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        """Descriptor of the file, which a spawned worker inherits where it can. It is closed with the page."""
        # ACCESS_WRITE is a shared map on every platform
        self._page = mmap.mmap(descriptor, _PAGE_BYTES, access=mmap.ACCESS_WRITE)
        # drawing a number is one step of the interpreter: threads need no lock
        self._serials = itertools.count(1)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Create the file in the parent. Raises ``FileExistsError`` if it exists."""
        with path.open("xb") as file:
            # written, not a hole: a write to a map of a hole dies of SIGBUS when the disk is full
            file.write(bytes(_PAGE_BYTES))
        return cls.open(path)

    @classmethod
    def open(cls, file: Path | int) -> Self:
        """Open the file in a spawned worker, by its path or by a descriptor."""
        return cls(file if isinstance(file, int) else move_high(os.open(file, os.O_RDWR | _BINARY)))

    def write(self, shard: str, tensor: str) -> None:
        """Note what is being read; two empty names when nothing is. Of threads that write at once the last one wins."""
        serial = next(self._serials)
        note = _note(serial, shard, tensor)
        if len(note) > _SLOT_BYTES:
            note = _note(serial, shard[:_NAME_LENGTH], tensor[:_NAME_LENGTH])
        start = serial % 2 * _SLOT_BYTES
        self._page[start : start + len(note)] = note

    def read(self) -> LoadPosition | None:
        """The last note; ``None`` when nothing is being read, or was noted since ``clear``, or both slots are being written."""
        notes = [note for slot in (0, _SLOT_BYTES) if (note := self._whole_note(slot))]
        place = max(notes, key=lambda note: note.serial, default=None)
        if place is None or not place.shard:
            return None
        return place

    def clear(self) -> None:
        """Forget everything: for the parent, before each job, since a new worker counts from one again."""
        self._page[:] = bytes(_PAGE_BYTES)

    def close(self) -> None:
        """Let go of the page; the file stays, to be removed by whoever owns its folder."""
        self._page.close()
        os.close(self.descriptor)

    def _whole_note(self, slot: int) -> LoadPosition | None:
        data = self._page[slot : slot + _SLOT_BYTES]
        serial, *names, check = data.split(b"\0", 4)[:4]
        if not serial or serial != check or data != self._page[slot : slot + _SLOT_BYTES]:
            return None
        shard, tensor = (name.decode() for name in names)
        return LoadPosition(shard, tensor, int(serial))


def _note(serial: int, shard: str, tensor: str) -> bytes:
    # no name of a file has a zero; one that is no UTF-8 has surrogates, which cannot be encoded
    return f"{serial}\0{shard}\0{tensor}\0{serial}\0".encode("utf-8", "replace")
