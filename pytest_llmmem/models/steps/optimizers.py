"""Optimizers by name, for real parameters and for fake ones."""

from collections.abc import Iterable
from typing import Any, Literal

import torch

from pytest_llmmem.core.errors import StepError

_BLOCK = 256
"""Elements that share a scale in bitsandbytes' 8-bit optimizers: ``blocksize`` of its ``Optimizer2State.init_state``."""

_SMALL = 4096
"""Parameters with fewer elements keep float32 state: ``min_8bit_size`` of bitsandbytes."""


def make_optimizer(
    name: str, parameters: Iterable[torch.nn.Parameter], *, device: Literal["cpu", "cuda"], are_fake: bool
) -> torch.optim.Optimizer:
    """An optimizer with a user's defaults. The default loop of torch depends on the device.

    Raises ``StepError`` when no parameter is trainable, or a package is missing.
    """
    trained = [each for each in parameters if each.requires_grad]
    if not trained:
        msg = "no weight of this model is trained, and quantized ones cannot be: train an adapter, lora=16"
        raise StepError(msg)
    on_card = device == "cuda"
    match name:
        case "adamw":
            return torch.optim.AdamW(trained, foreach=on_card)
        case "adamw-foreach":
            return torch.optim.AdamW(trained, foreach=True)
        case "adamw-fused":
            return torch.optim.AdamW(trained, fused=True)
        case "sgd":
            return torch.optim.SGD(trained, lr=1e-3, foreach=on_card)
        case "adafactor":
            return torch.optim.Adafactor(trained, foreach=on_card)
        case "adamw8bit":
            return _Fake8bit(trained) if are_fake else _adamw8bit(trained)
    msg = f"{name} was checked when the step was parsed"
    raise AssertionError(msg)


def promised_bytes_per_element(name: str, dtype_bytes: int) -> float | None:
    """State bytes per element of a trained weight, from the optimizer's paper; ``None`` where they depend on the shape."""
    match name:
        case "adamw" | "adamw-foreach" | "adamw-fused":
            return 2 * dtype_bytes
        case "sgd":
            return 0
        case "adamw8bit":
            return 2 * (1 + 4 / _BLOCK)
    return None


def promised_copies(name: str) -> int:
    """Temporary tensors of one step on a GPU, in copies of all trained weights.

    torch's ``foreach`` loop of AdamW takes the root of all second moments at once.
    """
    return 1 if name in {"adamw", "adamw-foreach"} else 0


def _adamw8bit(trained: list[torch.nn.Parameter]) -> Any:
    try:
        import bitsandbytes
    except ImportError:
        raise StepError(
            "optimizer='adamw8bit' needs bitsandbytes: pip install bitsandbytes, or write 'adamw'"
        ) from None
    return bitsandbytes.optim.AdamW8bit(trained)


class _Fake8bit(torch.optim.Optimizer):  # type: ignore[misc]  # torch has no types here
    """The state of bitsandbytes' AdamW8bit, whose kernels do not support fake tensors."""

    def __init__(self, trained: list[torch.nn.Parameter]) -> None:
        super().__init__(trained, {})

    @torch.no_grad()  # type: ignore[untyped-decorator]  # torch has no types here
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    self.state[parameter] = self._initial(parameter)

    def _initial(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        if parameter.numel() < _SMALL:
            return {name: torch.zeros_like(parameter, dtype=torch.float32) for name in ("state1", "state2")}
        blocks = -(-parameter.numel() // _BLOCK)
        states = {name: torch.zeros_like(parameter, dtype=torch.uint8) for name in ("state1", "state2")}
        scales = {
            name: torch.zeros(blocks, dtype=torch.float32, device=parameter.device) for name in ("absmax1", "absmax2")
        }
        return states | scales
