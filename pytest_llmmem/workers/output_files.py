"""The files that a worker's standard output and error went to."""

import os
import stat
from collections.abc import Iterable


def take_tails(descriptors: Iterable[int], length: int) -> tuple[str, str]:
    """The last ``length`` bytes of each file, which is then emptied: the next worker writes to it, where it was inherited.

    Two empty texts where they are no files.
    """
    tails = []
    for descriptor in descriptors:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            continue
        os.lseek(descriptor, max(0, status.st_size - length), os.SEEK_SET)
        tails.append(os.read(descriptor, length).decode(errors="replace"))
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
    return (tails[0], tails[1]) if len(tails) == 2 else ("", "")
