"""Every private name of torch and of transformers that steps need; tried with torch 2.13 and transformers 5.23.

No public name reports a dispatched operation or a running backward pass, or makes a tensor without memory that keeps
its device.
"""

import contextlib
import os
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_iter

__all__ = [
    "ASK_DEVICE",
    "EFFICIENT_ATTENTION",
    "FLASH_ATTENTION",
    "IS_NONZERO",
    "VALUE_OF",
    "DataDependentOutputException",
    "FakeTensor",
    "FakeTensorMode",
    "OpOverload",
    "TorchDispatchMode",
    "backward_node_number",
    "device_of",
    "forget_static_cache",
    "forward_node_number",
    "from_config",
    "is_backward_running",
    "is_traceable_wrapper_subclass",
    "number_of_node",
    "resizes_reported",
    "storage_key",
    "tensors_by_name",
    "transformers_as_in_a_run",
    "tree_iter",
]

_NO_CHECKS = "TRANSFORMERS_DISABLE_TORCH_CHECK"

ASK_DEVICE = torch.ops.prim.device.default
"""The operation that ``tensor.device`` dispatches for a fake tensor: it makes no storage."""


VALUE_OF = torch.ops.aten._local_scalar_dense.default  # noqa: SLF001
"""The operation behind ``tensor.item()``."""

IS_NONZERO = torch.ops.aten.is_nonzero.default
"""The operation behind ``if tensor:``."""

FLASH_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention  # noqa: SLF001
EFFICIENT_ATTENTION = torch.ops.aten._scaled_dot_product_efficient_attention  # noqa: SLF001
"""The attention kernels of a GPU."""


def from_config(model_class: Any, config: Any, *, dtype: torch.dtype) -> Any:
    """A model of a class; the public ``from_config`` is of Auto classes alone, which do not read ``architectures``."""
    return model_class._from_config(config, dtype=dtype)  # noqa: SLF001


def tensors_by_name(module: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters and the buffers of a module itself, to replace in place: ``setattr`` would change their order."""
    return module._parameters, module._buffers  # noqa: SLF001


def device_of(tensor: Any) -> torch.device:
    """The tensor's device. For a fake tensor it avoids a dispatch, which takes as long as an operation."""
    return tensor.fake_device if isinstance(tensor, FakeTensor) else tensor.device


def is_backward_running() -> bool:
    """Whether this thread is inside of autograd's engine."""
    return bool(torch._C._current_graph_task_id() != -1)  # noqa: SLF001


def forward_node_number() -> int:
    """The number of the last autograd node, which belongs to the operation now dispatched."""
    return int(torch.autograd._get_sequence_nr()) - 1  # noqa: SLF001


def backward_node_number() -> int | None:
    """The number of the node whose backward runs, the same as in the forward pass; ``None`` outside of a backward pass."""
    node = torch._C._current_autograd_node()  # noqa: SLF001
    return None if node is None else int(node._sequence_nr())  # noqa: SLF001


def number_of_node(node: object) -> int | None:
    """The number of the node of an autograd ``Function`` in Python; ``None`` for any other object."""
    return int(node._sequence_nr()) if isinstance(node, torch.autograd.function.BackwardCFunction) else None  # noqa: SLF001


def storage_key(storage: Any) -> int:
    """The address of the storage: equal for all tensors that share it, and unique while it exists."""
    return int(storage._cdata)  # noqa: SLF001


@contextlib.contextmanager
def resizes_reported(resized: Callable[[Any], None]) -> Iterator[None]:
    """Call ``resized`` with each storage that Python resizes, which dispatches no operation.

    FSDP releases gathered weights by a resize to nothing, and makes room for them again by another.
    """
    before = vars(torch.UntypedStorage).get("resize_", torch._C.StorageBase.resize_)  # noqa: SLF001

    def resize_(storage: Any, size: int) -> Any:
        result = before(storage, size)
        resized(storage)
        return result

    torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.UntypedStorage.resize_ = before  # type: ignore[method-assign]


def forget_static_cache(model: Any) -> None:
    """Let a static cache have the size of its own generation: transformers takes the largest one before."""
    vars(model).pop("_previous_max_cache_length", None)


@contextlib.contextmanager
def transformers_as_in_a_run() -> Iterator[None]:
    """Make transformers treat fake tensors like real ones.

    It takes fake tensors for tracing, and would keep masks that a real run drops. A real run uses torch's grouped product in
    every dtype; it supports fake tensors in bfloat16 alone, so that the other dtypes use transformers' own product. Its
    checks compare values, such as the number of a picture's tokens with that of its features, which fake tensors do not have.
    The fake kernel of optimum-quanto leaves a byte for each value of a quantized cache, where the real one packs two or four.
    """
    with contextlib.ExitStack() as undo:
        undo.callback(_set_variable, _NO_CHECKS, os.environ.get(_NO_CHECKS))
        os.environ[_NO_CHECKS] = "1"
        for module, name, make in (
            ("transformers.masking_utils", "is_tracing", lambda _before: lambda *_: False),
            ("transformers.integrations.moe", "_can_use_grouped_mm", _only_in_bfloat16),
            ("transformers.cache_utils.QuantoQuantizedLayer", "_quantize", _packed),
        ):
            try:
                place = pkgutil.resolve_name(module)
                before = getattr(place, name)
            except (ImportError, AttributeError):  # another version, without that name
                continue
            undo.callback(setattr, place, name, before)
            setattr(place, name, make(before))
        yield


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _only_in_bfloat16(before: Callable[..., bool]) -> Callable[..., bool]:
    def can_use(inputs: Any, weight: Any, offsets: Any) -> bool:
        return bool(weight.dtype == torch.bfloat16 and before(inputs, weight, offsets))

    return can_use


def _packed(before: Callable[..., Any]) -> Callable[..., Any]:
    def quantize(layer: Any, tensor: Any, axis: int) -> Any:
        from optimum.quanto.tensor.packed import PackedTensor

        result = before(layer, tensor, axis=axis)
        result._data = PackedTensor.pack(result._data, layer.nbits)  # noqa: SLF001
        return result

    return quantize
