"""Sparse files. Their holes were never written, read as zeros and take no disk space."""

import ctypes
import sys
from pathlib import Path
from typing import BinaryIO, Final

_SET_SPARSE: Final = 0x900C4
"""``FSCTL_SET_SPARSE``."""


def create_sparse(path: Path) -> BinaryIO:
    """Open a new file in which ``seek`` leaves holes."""
    file = path.open("wb")
    if sys.platform == "win32":
        import msvcrt

        # NTFS writes zeros into skipped ranges unless the file is marked as sparse; FAT has no holes and refuses the mark
        handle, returned = msvcrt.get_osfhandle(file.fileno()), ctypes.c_uint32()
        control = ctypes.WinDLL("kernel32").DeviceIoControl
        control(ctypes.c_void_p(handle), _SET_SPARSE, None, 0, None, 0, ctypes.byref(returned), None)
    return file


def end_with_hole(file: BinaryIO, size: int) -> None:
    """Set the file length. ``truncate`` would write zeros on Windows."""
    if size > file.tell():
        file.seek(size - 1)
        file.write(b"\0")


def disk_bytes(path: Path) -> int:
    """Disk space of a file, without its holes."""
    if sys.platform != "win32":
        return 512 * path.stat().st_blocks
    high = ctypes.c_uint32()
    get_size = ctypes.WinDLL("kernel32", use_last_error=True).GetCompressedFileSizeW
    get_size.restype = ctypes.c_uint32
    low: int = get_size(ctypes.c_wchar_p(str(path)), ctypes.byref(high))
    if low == 0xFFFFFFFF and (error := ctypes.get_last_error()):
        raise ctypes.WinError(error)
    return (high.value << 32) + low
