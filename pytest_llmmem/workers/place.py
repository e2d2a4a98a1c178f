"""Where a worker's load is, on a page of memory that outlives the worker, whatever ends it.

A message would be lost with a worker that is killed, and would cost a system call for each tensor. A page of a file that
both have mapped costs a copy of the two names, and stays as the worker's last write left it.
"""

import itertools
import mmap
import struct
import time
import zlib
from pathlib import Path
from typing import Final, Self

from pytest_llmmem.core.places import Place

__all__ = ["Place", "PlaceFile"]

_NAME_BYTES: Final = 400
"""What is kept of a name, in UTF-8."""
_CHECK: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<QHH")
"""Serial number, bytes of the shard's name, bytes of the tensor's name; the names follow."""
_SLOT_BYTES: Final = 1024
_PAGE_BYTES: Final = 4096


class PlaceFile:
    """A note of one place: a worker writes it, its parent reads it.

    Two slots are written in turn and each carries a checksum. A note that is being written, or was cut short by the
    worker's death, is told from a whole one, and the one before it is still there.
    """

    def __init__(self, path: Path, page: mmap.mmap) -> None:
        self.path = path
        """By which a spawned worker opens it; a forked one inherits the object."""
        self.began: dict[str, float] = {}
        """When ``read`` first found each shard, in seconds of ``time.monotonic``: late by up to the reader's interval,
        and a shard that began and ended between two reads is not in it."""
        self._page = page
        # drawing a number is one step of the interpreter: threads need no lock
        self._serials = itertools.count(1)

    @classmethod
    def create(cls, path: Path) -> Self:
        """For the parent. Raises ``FileExistsError`` when the file is there."""
        with path.open("x+b") as file:
            # written, not a hole: a write to a map of a hole dies of SIGBUS when the disk is full
            file.write(bytes(_PAGE_BYTES))
            file.flush()
            return cls(path, _mapped(file.fileno()))

    @classmethod
    def open(cls, path: Path) -> Self:
        """For a spawned worker."""
        with path.open("r+b") as file:
            return cls(path, _mapped(file.fileno()))

    def write(self, shard: str, tensor: str) -> None:
        """Note what is being read; two empty names when nothing is. Of threads that write at once the last one wins."""
        shard_name, tensor_name = _cut(shard), _cut(tensor)
        serial = next(self._serials)
        note = _HEAD.pack(serial, len(shard_name), len(tensor_name)) + shard_name + tensor_name
        note = _CHECK.pack(zlib.crc32(note)) + note
        start = serial % 2 * _SLOT_BYTES
        self._page[start : start + len(note)] = note

    def read(self) -> Place | None:
        """The last note; ``None`` when nothing is being read, or was noted since ``clear``, or both slots are being written."""
        notes = [note for slot in (0, _SLOT_BYTES) if (note := self._whole_note(slot))]
        place = max(notes, key=lambda note: note.serial, default=None)
        if place is None or not place.shard:
            return None
        self.began.setdefault(place.shard, time.monotonic())
        return place

    def clear(self) -> None:
        """Forget everything: for the parent, before each job, since a new worker counts from one again."""
        self._page[:] = bytes(_PAGE_BYTES)
        self.began.clear()

    def close(self) -> None:
        """Let go of the page; the file stays, to be removed by whoever owns its folder."""
        self._page.close()

    def _whole_note(self, slot: int) -> Place | None:
        data = self._page[slot : slot + _SLOT_BYTES]
        (check,) = _CHECK.unpack_from(data)
        serial, shard_bytes, tensor_bytes = _HEAD.unpack_from(data, _CHECK.size)
        names = _CHECK.size + _HEAD.size
        middle, end = names + shard_bytes, names + shard_bytes + tensor_bytes
        if zlib.crc32(data[_CHECK.size : end]) != check:
            return None
        return Place(_text(data[names:middle]), _text(data[middle:end]), serial)


def _mapped(descriptor: int) -> mmap.mmap:
    # ACCESS_WRITE is a shared map on every platform
    return mmap.mmap(descriptor, _PAGE_BYTES, access=mmap.ACCESS_WRITE)


def _cut(name: str) -> bytes:
    # a file name that is no UTF-8 has surrogates in it, which cannot be encoded
    return name.encode(errors="replace")[:_NAME_BYTES]


def _text(name: bytes) -> str:
    # the cut may have gone through a character
    return name.decode(errors="ignore")
