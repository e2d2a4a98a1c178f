"""Memory for training every weight of a model, as plain arithmetic. Activations are not included."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from pytest_llmmem.models.checkpoints.tensors import nbytes_of

Precision = Literal["float32", "bfloat16", "mixed"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEstimate:
    """Bytes that stay from step to step, without activations."""

    precision: Precision
    """``"mixed"``: bfloat16 weights and gradients, float32 master weights and moments."""

    parameters_bytes: int
    """Bytes of the parameters, master weights included."""

    gradients_bytes: int

    optimizer_bytes: int
    """Bytes of Adam's two moments."""

    @property
    def total_bytes(self) -> int:
        """Bytes of parameters, gradients and optimizer together."""
        return self.parameters_bytes + self.gradients_bytes + self.optimizer_bytes


def estimate_training(parameters: int, precision: Precision) -> TrainingEstimate:
    """Bytes of weights, gradients and Adam's two moments, in the dtype of the weights as ``torch.optim`` keeps them.

    Two moments: Kingma and Ba, "Adam", 2015, algorithm 1. Mixed precision, 16 bytes for each parameter: Rajbhandari and others,
    "ZeRO", 2020, section 3.1.
    """
    if precision == "mixed":
        narrow, wide = nbytes_of(parameters, "bfloat16"), nbytes_of(parameters, "float32")
        return TrainingEstimate(
            precision=precision, parameters_bytes=narrow + wide, gradients_bytes=narrow, optimizer_bytes=2 * wide
        )
    weights = nbytes_of(parameters, precision)
    return TrainingEstimate(
        precision=precision, parameters_bytes=weights, gradients_bytes=weights, optimizer_bytes=2 * weights
    )
