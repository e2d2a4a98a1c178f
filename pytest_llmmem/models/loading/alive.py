"""Memory of the live torch objects of this process: models by class, gradients, optimizers, caches, other tensors."""

import gc
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmmem.core.record_parts import AliveRecord
from pytest_llmmem.models.loading.tensor_walk import is_tensor, walk

_LEAST_BYTES: Final = 1_000_000
"""Smaller objects are not reported: they explain no exceeded limit."""
_MOST: Final = 8


def objects_alive() -> tuple[AliveRecord, ...]:
    """Records of the live objects, the largest first. Empty where torch is not imported; this function does not import it.

    A tensor counts once, for the first record that it belongs to. Objects inherited at a fork are not included.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return ()
    objects = gc.get_objects()
    inventory = _Inventory()
    modules = [each for each in objects if _is_a(each, torch.nn.Module)]
    parts = {id(part) for module in modules for part in module._modules.values()}  # noqa: SLF001 -- calls no user code
    for module in modules:
        if id(module) not in parts:
            inventory.add(type(module).__name__, _weights(module))
    tensors = [each for each in objects if _is_a(each, torch.Tensor)]
    inventory.add(
        "gradients", (tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None), once=True
    )
    for optimizer in (each for each in objects if _is_a(each, torch.optim.Optimizer)):
        inventory.add(f"{type(optimizer).__name__} state", _tensors_below(dict(optimizer.state)))
    if cache := getattr(sys.modules.get("transformers.cache_utils"), "Cache", None):
        for each in (each for each in objects if _is_a(each, cache)):
            inventory.add(type(each).__name__, _tensors_below(each))
    if kept := getattr(sys.modules.get("transformers.trainer_pt_utils"), "EvalLoopContainer", None):
        for each in (each for each in objects if _is_a(each, kept)):
            inventory.add(kept.__name__, _tensors_below(each))
    inventory.add("other tensors", tensors, once=True)
    return inventory.records()


@dataclass(slots=True)
class _Inventory:
    """Bytes by name, each storage once."""

    _seen: set[tuple[str, int]] = field(default_factory=set)
    _bytes: Counter[str] = field(default_factory=Counter)
    _counts: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, tensors: Iterable[Any], *, once: bool = False) -> None:
        """Add the tensors of one object. ``once`` leaves out the count of objects."""
        for tensor in tensors:
            if tensor.device.type == "meta":
                continue
            storage = tensor.untyped_storage()
            key = str(tensor.device), storage.data_ptr()
            if key not in self._seen:
                self._seen.add(key)
                self._bytes[name] += storage.nbytes()
        self._counts[name] += not once

    def records(self) -> tuple[AliveRecord, ...]:
        large = [(name, size) for name, size in self._bytes.most_common(_MOST) if size >= _LEAST_BYTES]
        return tuple(AliveRecord(name=name, count=self._counts[name] or None, bytes=size) for name, size in large)


def _is_a(value: Any, kind: type) -> bool:
    # isinstance may run the code of a proxy object
    return issubclass(type(value), kind)


def _weights(module: Any) -> Iterator[Any]:
    yield from module.parameters()
    yield from module.buffers()


def _tensors_below(value: Any) -> Iterator[Any]:
    return (found.value for found in walk(value) if is_tensor(found.value))
