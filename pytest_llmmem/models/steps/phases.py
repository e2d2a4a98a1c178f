"""The current phase and step. A phase lasts until the next one begins."""

from typing import NamedTuple, Protocol

from pytest_llmmem.models.steps.torch_internals import is_backward_running


class Stage(NamedTuple):
    """One interval of a phase. With gradient accumulation a step has several intervals of each phase."""

    step: int
    """Number of the step, from 1 on."""

    phase: str

    number: int
    """Number of the interval, in the order of all intervals."""


class Phases(Protocol):
    """The order of phases in a loop."""

    def now(self) -> Stage:
        """The stage of an operation that is dispatched now."""

    def forward_begins(self) -> bool:
        """Record the call of a model. Returns whether a new step begins with it."""

    def optimizer_begins(self) -> None:
        """Record the start of an optimizer's step."""

    def optimizer_ends(self) -> None:
        """Record the end of an optimizer's step."""


class TrainingPhases:
    """``forward``, ``backward``, ``optimizer``; the first forward pass after an optimizer's step begins the next step."""

    def __init__(self) -> None:
        self._now = Stage(1, "forward", 0)
        self._stepped = False

    def now(self) -> Stage:
        if self._now.phase == "forward" and is_backward_running():
            self._enter("backward")
        return self._now

    def forward_begins(self) -> bool:
        if (
            is_backward_running() or self._now.phase == "forward"
        ):  # recomputed by checkpointing, or one of several models
            return False
        begins_step, self._stepped = self._stepped, False
        self._enter("forward", step=self._now.step + begins_step)
        return begins_step

    def optimizer_begins(self) -> None:
        if self._now.phase != "optimizer":
            self._enter("optimizer")

    def optimizer_ends(self) -> None:
        self._stepped = True

    def resume(self, stage: Stage) -> None:
        """Continue from a stage of passes that were replayed."""
        self._now, self._stepped = stage, False

    def _enter(self, phase: str, *, step: int | None = None) -> None:
        self._now = Stage(step or self._now.step, phase, self._now.number + 1)


class GenerationPhases:
    """``prefill`` is the first forward pass with everything before it, ``decode`` is all later forward passes."""

    def __init__(self) -> None:
        self._now = Stage(1, "prefill", 0)
        self._forwards = 0

    def now(self) -> Stage:
        return self._now

    def forward_begins(self) -> bool:
        self._forwards += 1
        if self._forwards == 2:
            self._now = Stage(1, "decode", 1)
        return False

    def optimizer_begins(self) -> None:
        pass

    def optimizer_ends(self) -> None:
        pass
