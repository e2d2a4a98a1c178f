"""What a worker leaves, whatever ends it: files that its parent has made, and reads and removes."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pytest_llmmem.workers.place import PlaceFile


@dataclass(frozen=True, slots=True)
class Traces:
    """A folder with the stacks that faulthandler writes, the place of a load, and what loads put on disk."""

    folder: Path
    stacks: int
    """Descriptor of the file that faulthandler writes to."""
    place: PlaceFile

    @classmethod
    def create(cls, folder: Path) -> Self:
        """For the parent."""
        cls._scratch(folder).mkdir()
        # append: the parent empties the file between jobs
        stacks = os.open(folder / "stacks", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        return cls(folder, stacks, PlaceFile.create(folder / "place"))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """For a spawned worker; a forked one inherits the object."""
        return cls(folder, os.open(folder / "stacks", os.O_RDWR | os.O_APPEND), PlaceFile.open(folder / "place"))

    @property
    def scratch(self) -> Path:
        """Where loads put what they write to disk."""
        return self._scratch(self.folder)

    def begin(self) -> None:
        """Before a job: forget the one before it."""
        os.ftruncate(self.stacks, 0)
        self.place.clear()

    def stacks_size(self) -> int:
        return os.fstat(self.stacks).st_size

    def stacks_text(self, start: int = 0) -> str:
        """What faulthandler has written from there on."""
        os.lseek(self.stacks, start, os.SEEK_SET)
        return os.read(self.stacks, self.stacks_size()).decode(errors="replace")

    def sweep(self) -> None:
        """After a worker died: remove what its loads have left on disk."""
        for left in self.scratch.iterdir():
            shutil.rmtree(left, ignore_errors=True)

    def close(self) -> None:
        """Let go of the files; whoever owns the folder removes it."""
        os.close(self.stacks)
        self.place.close()

    @staticmethod
    def _scratch(folder: Path) -> Path:
        return folder / "scratch"
