"""The work of a measured process: load a model, then run or train it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pytest_llmmem.models.steps.spec import TrainSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A load, and the steps after it."""

    folder: Path
    """The checkpoint."""
    load: str
    """A built-in strategy."""
    train: TrainSpec | None = None
    """The training step; ``None``: a step is a forward pass of eight tokens. Its number of steps is not used."""
    steps: int = 3

    def shortest(self) -> Self:
        """The same with as few steps as show its whole memory: an optimizer's state exists from the second step on."""
        return dataclasses.replace(self, steps=2 if self.train else 1)

    def of_copy(self, folder: Path) -> Self:
        """The same with a copy of the checkpoint."""
        return dataclasses.replace(self, folder=folder)

    @property
    def step_words(self) -> str:
        """The name of one step: ``"a forward pass"`` or ``"a training step"``."""
        return "a training step" if self.train else "a forward pass"

    def to_json(self) -> dict[str, Any]:
        """Plain data for another process."""
        return dataclasses.asdict(self) | {"folder": str(self.folder)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what ``to_json`` wrote."""
        train = data["train"]
        return cls(
            folder=Path(data["folder"]),
            load=data["load"],
            train=TrainSpec.parse(train) if train else None,
            steps=data["steps"],
        )
