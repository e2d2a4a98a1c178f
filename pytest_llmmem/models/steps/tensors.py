"""Tensors inside of other values: an operation's arguments, and caches of keys and values of any class."""

import functools
from collections.abc import Iterator
from typing import Any

import torch

from pytest_llmmem.models.steps.torch_internals import is_traceable_wrapper_subclass, storage_key, tree_iter


def storage_of(tensor: torch.Tensor) -> Any:
    """The storage of a tensor; ``None`` for a sparse one, which has several."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


class Operation:
    """A dispatched operation. Some have hundreds of inputs, and as many results."""

    def __init__(self, func: Any, args: Any) -> None:
        self.func, self._args = func, args

    @functools.cached_property
    def _inputs(self) -> frozenset[int]:
        storages = (storage_of(each) for each in tree_iter(self._args) if isinstance(each, torch.Tensor))
        return frozenset(storage_key(storage) for storage in storages if storage is not None)

    def has_input(self, memory: Any) -> bool:
        """Whether an input has that storage: then it existed before."""
        return storage_key(memory) in self._inputs


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in a cache of keys and values of any class; of a quantized one its parts."""
    if is_traceable_wrapper_subclass(value):
        yield from tensors_of([getattr(value, name) for name in value.__tensor_flatten__()[0]])
    elif isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_of(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_of(each)
    elif type(value).__module__.startswith("transformers.") and hasattr(value, "__dict__"):
        yield from tensors_of([each for name, each in vars(value).items() if "config" not in name])
