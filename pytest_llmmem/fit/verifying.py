"""A private copy of a checkpoint. A run within a limit reads it from the disk, and its pages count for the run."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SPARE: Final = 1.1
"""Times the checkpoint's size must be free on the disk."""


def why_not(folder: Path) -> str:
    """Why a checkpoint cannot be read from disk again and again; empty when it can."""
    if sys.platform != "linux":
        return "memory control groups are Linux's"
    files = [path for path in folder.iterdir() if path.is_file()]
    if any(path.stat().st_blocks * 512 < path.stat().st_size // 2 for path in files):
        return "its files are sparse, as those of a synthetic model are: reading them again costs no disk"
    size_bytes = sum(path.stat().st_size for path in files)
    if shutil.disk_usage(tempfile.gettempdir()).free < _SPARE * size_bytes:
        return f"no room for a copy of it in {tempfile.gettempdir()}"
    return ""


@contextlib.contextmanager
def own_copy(folder: Path) -> Iterator[Path]:
    """A copy that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="llmmem-fit-") as parent:
        copy = Path(parent, folder.name)
        shutil.copytree(folder, copy)
        yield copy


def drop_page_cache(folder: Path) -> None:
    """Drop the files' pages from the page cache: they must be on the disk, and no process may map them."""
    if sys.platform != "linux":
        return
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
