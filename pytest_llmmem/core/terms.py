"""Values of the terms of a limit: the machine's, the checkpoint's, and those of a step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pytest_llmmem.core.limits import DTYPE_BITS, RANKS, STEP_TERMS, Limit

NO_CHECKPOINT: Final = (
    ", and this test has none: let it use loaded_model or model_checkpoint and pass --llm-model, "
    "or write a size like '8GB'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Values of the terms of a limit, in bytes."""

    host_bytes: int
    """Total memory of the machine, or of the container."""
    device_bytes: int | None = None
    """Total memory of the GPU that is limited; ``None`` for a limit of host memory."""
    model: Mapping[str, int] = field(default_factory=dict)
    """Sizes by their name in a limit; empty where no checkpoint is known."""
    ranks: int = 1
    """Number of ranks over which the test spreads the weights."""
    why_no_model: str = NO_CHECKPOINT
    """End of the error for a limit in terms of a checkpoint when there is none."""
    steps: Mapping[str, int] | None = None
    """Predicted memory of the test's steps; ``None`` where there is no time for a prediction."""
    why_no_steps: str = ": write it in max_ram or max_vram, or write a size here"
    """End of the error for a limit in terms of a step when there are none."""

    def bytes(self, limit: Limit) -> int:
        """Evaluate a limit. Raises ``ValueError`` with the fix when one of its words is not known here."""
        if "device" in limit.terms and self.device_bytes is None:
            msg = f"{limit.text!r} is a share of a GPU: for memory of the host write '50% host'"
            raise ValueError(msg)
        if limit.needs_model and not self.model:
            msg = f"{limit.text!r} is in terms of a checkpoint{self.why_no_model}"
            raise ValueError(msg)
        for term in limit.step_terms:
            if self.steps is None:
                msg = f"{limit.text!r} is in terms of a step{self.why_no_steps}"
                raise ValueError(msg)
            if term not in self.steps:
                name = term.partition("@")[0]
                msg = (
                    f"{limit.text!r} is in terms of a step, and nothing says what {name!r} is: "
                    f"mark the test with {STEP_TERMS[name]}"
                )
                raise ValueError(msg)
        share = {"share": -(-self.model["weights"] // self.ranks)} if self.model else {}
        machine = {"host": self.host_bytes, "device": self.device_bytes or 0, RANKS: self.ranks}
        return limit.bytes({**machine, **self.model, **share, **(self.steps or {})})


def terms_of(*, weights: int, shard: int, largest_layer: int, parameters: int, adapter: int = 0) -> dict[str, int]:
    """The checkpoint's terms in bytes, under the names that a limit uses. Without an adapter, that takes nothing."""
    params = {f"params@{dtype}": parameters * bits // 8 for dtype, bits in DTYPE_BITS.items()}
    return {"weights": weights, "adapter": adapter, "shard": shard, "largest_layer": largest_layer, **params}


def train_terms_of(
    *, trainable: int, trainable_bytes: int, gradients: int, optimizer: int, activations: int
) -> dict[str, int]:
    """The terms of a training step in bytes; ``trainable`` counts the elements of the weights that are trained."""
    counted = {f"trainable@{dtype}": trainable * bits // 8 for dtype, bits in DTYPE_BITS.items()}
    parts = {"gradients": gradients, "optimizer": optimizer, "activations": activations}
    return {"trainable": trainable_bytes, **counted, **parts}
