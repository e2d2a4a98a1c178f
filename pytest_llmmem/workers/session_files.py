"""Files that outlive a worker, whatever ends it: its parent makes, reads and removes them.

A test may empty the folder of temporary files, and this one with it: whoever has the two files open goes on with them.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pytest_llmmem.workers.channel import move_high
from pytest_llmmem.workers.load_progress import LoadProgress


@dataclass(frozen=True, slots=True)
class SessionFiles:
    """A folder with the stacks that faulthandler writes, the place of a load, and what loads put on disk."""

    folder: Path
    stacks: int
    """Descriptor of the file that faulthandler writes to."""
    place: LoadProgress

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Create the files in the parent. Raises ``OSError`` if they cannot be made."""
        # append: the parent empties the file between jobs
        stacks = os.open(folder / "stacks", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        return cls(folder, move_high(stacks), LoadProgress.create(folder / "place"))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the files in a spawned worker that inherits no descriptors."""
        return cls(folder, os.open(folder / "stacks", os.O_RDWR | os.O_APPEND), LoadProgress.open(folder / "place"))

    @classmethod
    def inherit(cls, folder: Path, descriptors: tuple[int, int]) -> Self:
        """For a spawned worker, from what ``descriptors`` was for its parent; a forked one has the object."""
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        stacks, place = map(move_high, descriptors)
        return cls(folder, stacks, LoadProgress.open(place))

    @property
    def descriptors(self) -> tuple[int, int]:
        """Descriptors of the two files."""
        return self.stacks, self.place.descriptor

    @property
    def scratch(self) -> Path:
        """Folder for the files that loads write."""
        folder = self.folder / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def begin(self) -> None:
        """Before a job: forget the one before it."""
        os.ftruncate(self.stacks, 0)
        self.place.clear()

    def stacks_size(self) -> int:
        return os.fstat(self.stacks).st_size

    def stacks_text(self, start: int = 0) -> str:
        """The text that faulthandler wrote from ``start`` on."""
        os.lseek(self.stacks, start, os.SEEK_SET)
        return os.read(self.stacks, self.stacks_size()).decode(errors="replace")

    def sweep(self) -> None:
        """After a worker died: remove what its loads have left on disk."""
        shutil.rmtree(self.folder / "scratch", ignore_errors=True)

    def close(self) -> None:
        """Let go of the files; whoever owns the folder removes it."""
        os.close(self.stacks)
        self.place.close()
