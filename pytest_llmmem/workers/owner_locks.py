"""A lock that an owner holds for as long as it lives: the kernel takes it away with the process, however that ends."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock


def claim(path: Path) -> "FileLock | None":
    """Become the owner, until the lock is released; ``None`` while another process is. Raises ``OSError`` as ``open`` does."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
