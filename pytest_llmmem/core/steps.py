"""Memory of the tensors of a training or inference step: measured on real tensors, or predicted on fake ones.

Field names are keys of the report's ``steps``. Sizes are bytes; a storage that several tensors share counts once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from pytest_llmmem.core.sizes import format_size

Kind = Literal["parameters", "gradients", "optimizer", "activations", "inputs", "kv_cache", "temporary"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""Purpose of a tensor, in the order of every table.

parameters   weights and buffers of the modules, quantized ones with their scales
gradients    ``.grad`` of a parameter
optimizer    tensors in the state of an optimizer
activations  made by a forward pass and still alive when its backward pass begins
inputs       arguments of a model's call, and tensors that existed before the measurement began
kv_cache     keys and values in the ``past_key_values`` that a model returned
temporary    everything else: results of one operation that the next operations consume
"""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StepPhase:
    """One phase of one step: its highest moment, and what was left at its end."""

    step: int
    """Number of the step, from 1."""

    phase: str
    """``forward``, ``backward`` or ``optimizer``; ``prefill`` or ``decode`` when text is generated."""

    peak_bytes: int
    """Held by all tensors of the device together."""

    by_kind: dict[str, int]
    """The same, by kind."""

    op: str
    """The operation that made the tensor with which the peak was reached: ``aten.mm``."""

    module: str
    """The path of the module that it belongs to, ``model.layers.3.mlp``; empty outside of any."""

    end_by_kind: dict[str, int]
    """Held when the phase ended."""

    process_peak_bytes: int | None = None
    """Peak of the process in this phase: its resident growth since the steps began, without the tensors that existed then.

    ``None`` where it was not measured.
    """

    reserved_bytes: int | None = None
    """Reserved by the model of a GPU's allocator when the phase ended; ``None`` without one."""

    def __repr__(self) -> str:
        return f"<{self.phase} of step {self.step}: peak {format_size(self.peak_bytes)}; {_sizes(self.by_kind)}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptActivations:
    """Peak memory that one module keeps for the backward pass."""

    module: str
    """Its path; empty for operations outside of all modules."""
    bytes: int

    @property
    def place(self) -> str:
        """The module in words."""
        return self.module or "outside of modules"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StepMemory:
    """Memory of several steps on one device."""

    device: str
    """``cpu`` or ``cuda:0``: where the tensors were, or whose rules the prediction follows."""

    phases: tuple[StepPhase, ...]
    """Phases in the order of their beginning."""

    largest_by_kind: dict[str, int]
    """The most that each kind held at any moment; these moments differ, so the sum is above the peak."""

    kept: tuple[KeptActivations, ...] = ()
    """The ten modules that keep most, the largest first."""

    kept_by_pattern: dict[str, int] = field(default_factory=dict)
    """Bytes of all modules, those of all layers in one number, the largest first: ``model.layers.*.mlp.act_fn``."""

    trainable_parameters: int = 0
    """Elements of all parameters that need a gradient."""

    trainable_bytes: int = 0
    """The same in bytes."""

    name: str = "train_step"
    """Name of the fixture or of the block that measured."""

    predicted: "StepMemory | None" = field(default=None)
    """The same steps on fake tensors, where the test asked for them."""

    @property
    def peak_bytes(self) -> int:
        """Held by all tensors at the highest moment of all steps."""
        return max((each.peak_bytes for each in self.phases), default=0)

    @property
    def peak(self) -> StepPhase | None:
        """The phase in which that was, the last of equal ones; ``None`` without any."""
        return max(self.phases, key=lambda each: (each.peak_bytes, each.step), default=None)

    @property
    def shown_phases(self) -> tuple[StepPhase, ...]:
        """The phases of the last step, which has the optimizer's state, and the phase of the peak if it was earlier."""
        last, peak = self.steps, self.peak
        return tuple(each for each in self.phases if each.step == last or each is peak)

    @property
    def process_peak_bytes(self) -> int | None:
        """The highest of all phases; ``None`` where it was not measured."""
        return max(
            (each.process_peak_bytes for each in self.phases if each.process_peak_bytes is not None), default=None
        )

    @property
    def reserved_bytes(self) -> int | None:
        """The most that torch's allocator reserves on a GPU, by a model of it; ``None`` for a measurement."""
        return max((each.reserved_bytes for each in self.phases if each.reserved_bytes is not None), default=None)

    @property
    def steps(self) -> int:
        """The number of steps."""
        return max((each.step for each in self.phases), default=0)

    def peak_of_step(self, step: int) -> int:
        """The highest moment of one step, counted from 1."""
        return max((each.peak_bytes for each in self.phases if each.step == step), default=0)

    @property
    def parameters_bytes(self) -> int:
        """The most that parameters and buffers held."""
        return self.largest_by_kind.get("parameters", 0)

    @property
    def gradients_bytes(self) -> int:
        """The most that gradients held."""
        return self.largest_by_kind.get("gradients", 0)

    @property
    def optimizer_bytes(self) -> int:
        """The most that the optimizer's state held."""
        return self.largest_by_kind.get("optimizer", 0)

    @property
    def activations_bytes(self) -> int:
        """The most that was kept for a backward pass."""
        return self.largest_by_kind.get("activations", 0)

    @property
    def inputs_bytes(self) -> int:
        """The most that inputs held."""
        return self.largest_by_kind.get("inputs", 0)

    @property
    def kv_cache_bytes(self) -> int:
        """The most that keys and values held when a forward pass had ended."""
        return self.largest_by_kind.get("kv_cache", 0)

    @property
    def temporary_bytes(self) -> int:
        """The most that everything else held."""
        return self.largest_by_kind.get("temporary", 0)

    def __repr__(self) -> str:
        peak = self.peak
        where = f"peak {format_size(peak.peak_bytes)} in {peak.phase} of step {peak.step}" if peak else "no operation"
        return f"<{self.name} on {self.device}: {where}; {_sizes(self.largest_by_kind)}>"


def module_pattern(module: str) -> str:
    """A module's path without the numbers of layers: ``model.layers.*.mlp``."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", module)


def _sizes(by_kind: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {format_size(by_kind[kind])}" for kind in KINDS if by_kind.get(kind))
