"""Uncompressed zip files, as ``torch.save`` writes them: reading one entry, and writing whole files with holes.

``zipfile`` creates an object for every entry before it reads one, has no limit on unpacked sizes, and cannot write holes.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from pytest_llmmem.models.checkpoints.bounds import TooMuch
from pytest_llmmem.models.checkpoints.regular_files import RegularFile

MAGIC: Final = b"PK\x03\x04"
"""The start of a zip file: the magic number of its first entry's header."""

_FIRST_ENTRIES_BYTES: Final = 16_384
"""Bytes of the directory that are searched: ``torch.save`` writes the entry that describes the others first."""

_ALIGNMENT: Final = 64
_ENTRY: Final = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL: Final = struct.Struct("<4sHHHHHIIIHH")
_END: Final = struct.Struct("<4sHHHHIIH")
_END64: Final = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR64: Final = struct.Struct("<4sIQI")
_MAX_COMMENT: Final = 0xFFFF


class Entry(NamedTuple):
    """A file in a zip, from its directory."""

    name: bytes
    method: int
    """0 for stored, 8 for compressed."""
    checksum: int
    size: int
    offset: int
    """Offset of the entry's own header, which precedes its bytes."""


def read_entry(file: RegularFile, suffix: bytes, *, limit: int) -> bytes | None:
    """Read the entry with this name suffix; ``None`` when the directory, at the end of the file, is missing.

    Raises ``TooMuch`` for more bytes than ``limit``, and ``ValueError`` when the entry is damaged, compressed or not among the
    first ones.
    """
    directory = directory_of(file, limit=_FIRST_ENTRIES_BYTES)
    if directory is None:
        return None
    what = suffix.decode().removeprefix("/")
    entry = next((entry for entry in directory if entry.name.endswith(suffix)), None)
    if entry is None:
        msg = f"it has no {what} among its first entries"
        raise ValueError(msg)
    if entry.method != 0:
        msg = f"its {what} is compressed"
        raise ValueError(msg)
    if entry.size > limit:
        msg = f"a {what} of {entry.size:,} bytes"
        raise TooMuch(msg)
    content = start_of(file, entry, length=entry.size)
    if zlib.crc32(content) == entry.checksum:
        return content
    msg = "its zip is damaged"
    raise ValueError(msg)


def start_of(file: RegularFile, entry: Entry, *, length: int) -> bytes:
    """The first stored bytes of an entry, compressed or not; empty where the zip is damaged."""
    header = file.read(entry.offset, _LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(MAGIC):
        return b""
    *_, name_length, extra_length = _LOCAL.unpack(header)
    return file.read(entry.offset + _LOCAL.size + name_length + extra_length, min(length, entry.size))


def first_name(file: RegularFile) -> bytes:
    """The name of the first entry, read from the start of the file; empty where the file is not a zip."""
    header = file.read(0, _LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(MAGIC):
        return b""
    return file.read(_LOCAL.size, _LOCAL.unpack(header)[-2])


def directory_of(file: RegularFile, *, limit: int) -> Iterator[Entry] | None:
    """The entries in the first ``limit`` bytes of the directory; ``None`` when the end of the directory is missing."""
    directory = _read_directory(file, limit)
    return None if directory is None else _entries(directory)


def _read_directory(file: RegularFile, limit: int) -> bytes | None:
    """Read the start of the directory."""
    start = max(0, file.size - _END.size - _MAX_COMMENT)
    tail = file.read(start, _END.size + _MAX_COMMENT)
    end = tail.rfind(b"PK\x05\x06")
    if not 0 <= end <= len(tail) - _END.size:
        return None
    *_, size, offset, _comment = _END.unpack_from(tail, end)
    locator = file.read(max(0, start + end - _LOCATOR64.size), _LOCATOR64.size)
    if len(locator) == _LOCATOR64.size and locator.startswith(b"PK\x06\x07"):
        end64 = file.read(_LOCATOR64.unpack(locator)[2], _END64.size)
        if len(end64) == _END64.size and end64.startswith(b"PK\x06\x06"):
            *_, size, offset = _END64.unpack(end64)
    return file.read(offset, min(size, limit))


def _entries(directory: bytes) -> Iterator[Entry]:
    at = 0
    while directory.startswith(b"PK\x01\x02", at) and at + _ENTRY.size <= len(directory):
        fields = _ENTRY.unpack_from(directory, at)
        method, checksum, stored, size, name_length, extra_length, comment_length = fields[4], *fields[7:13]
        name = at + _ENTRY.size
        extra = name + name_length
        at = extra + extra_length + comment_length
        numbers = _in_full((size, stored, fields[-1]), directory[extra : extra + extra_length])
        yield Entry(directory[name:extra], method, checksum, size=numbers[1], offset=numbers[2])


def _in_full(numbers: tuple[int, ...], extra: bytes) -> list[int]:
    """Sizes and offsets as 64-bit numbers: those that do not fit into 32 bits come from the extra field."""
    large: Iterator[int] = iter(())
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        field, at = extra[at + 4 : at + 4 + length], at + 4 + length
        if kind == 1:
            large = iter(struct.unpack_from(f"<{len(field) // 8}Q", field))
    return [next(large, number) if number == 0xFFFFFFFF else number for number in numbers]


class StoredZipWriter:
    """A minimal zip64 writer: stored entries, aligned as torch aligns them, whose bytes may be a hole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._directory: list[bytes] = []

    def add(self, name: str, content: bytes) -> None:
        self._open(name, len(content), zlib.crc32(content))
        self._file.write(content)

    def add_hole(self, name: str, size: int) -> int:
        # The checksum of the hole is left at 0: torch does not check it, and random fill would change it.
        start = self._open(name, size, checksum=0)
        self._file.seek(start + size)
        return start

    def _open(self, name: str, size: int, checksum: int) -> int:
        header = self._file.tell()
        encoded = name.encode()
        size64 = struct.pack("<HHQQ", 1, 16, size, size)
        unpadded = header + 30 + len(encoded) + len(size64) + 4
        padding = -unpadded % _ALIGNMENT
        extra = size64 + struct.pack("<HH", 0x4246, padding) + bytes(padding)
        # Version 4.5 (zip64), no flags, stored, no date; sizes stand in the zip64 field.
        common = struct.pack("<HHHHHIII", 45, 0, 0, 0, 0x21, checksum, 0xFFFFFFFF, 0xFFFFFFFF)
        self._file.write(MAGIC + common + struct.pack("<HH", len(encoded), len(extra)) + encoded + extra)
        extra = struct.pack("<HHQQQ", 1, 24, size, size, header)
        tail = struct.pack("<HHHHHII", len(encoded), len(extra), 0, 0, 0, 0, 0xFFFFFFFF)
        self._directory.append(b"PK\x01\x02" + struct.pack("<H", 45) + common + tail + encoded + extra)
        return self._file.tell()

    def close(self) -> None:
        start = self._file.tell()
        directory = b"".join(self._directory)
        end = start + len(directory)
        count = len(self._directory)
        end64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), start)
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        no_zip64 = _END.pack(b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        self._file.write(directory + end64 + locator + no_zip64)
