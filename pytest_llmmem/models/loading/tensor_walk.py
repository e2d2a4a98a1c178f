"""Every tensor that an object holds: a model, a pipeline, a dict, or an inference engine."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, Final, NamedTuple

LEAVES: Final = (
    str, bytes, bytearray, int, float, complex, type(None), type, ModuleType, FunctionType, BuiltinFunctionType, MethodType,
)  # fmt: skip
"""Types that are not searched."""

_ENGINES: Final = frozenset({"llama_cpp", "onnxruntime"})
"""Libraries whose objects keep weights in memory of their own: the arrays that they have are for tokens and results."""

_OBJECTS_DEEP: Final = 3
"""Nested plain objects that are searched, from the root or a module on: an engine, its runner, its cache."""

_HOOKS: Final = frozenset({"_hf_hook", "_old_forward"})
"""Attributes that accelerate adds to a module: reading them may load a weight from disk."""


class Found(NamedTuple):
    """A module or a tensor below an object."""

    value: Any
    """An ``nn.Module``, without its submodules, or a tensor."""

    is_attribute: bool
    """Whether a module holds the tensor outside its parameters and buffers: in an attribute, a list, a cache."""


def walk(root: Any) -> Iterator[Found]:
    """Every ``nn.Module`` and every tensor outside of one, each once.

    Searches dicts, lists, tuples, sets and attributes. Calls no property and reads no lazy mapping, so that no weight
    is loaded. Numpy arrays come as the torch tensors that share their memory.
    """
    seen: set[int] = set()
    waiting: list[tuple[Any, int, bool]] = [(root, 0, False)]
    while waiting:
        value, depth, is_attribute = waiting.pop()
        if isinstance(value, LEAVES) or id(value) in seen or _is_engine(value):
            continue
        seen.add(id(value))
        if is_tensor(value):
            yield Found(value, is_attribute)
        elif _is_array(value):
            yield Found(_as_tensor(value), is_attribute)
        elif is_module(value):
            yield Found(value, is_attribute=False)
            waiting += ((child, 0, False) for child in value.children())
            waiting += ((held, 0, True) for held in _attributes(value))
        elif isinstance(value, dict | list | tuple | set | frozenset):
            items = list(value.values() if isinstance(value, dict) else value)
            waiting += ((item, depth, is_attribute) for item in items)
        elif depth < _OBJECTS_DEEP:
            waiting += ((held, depth + 1, is_attribute) for held in _fields(value))


def is_module(value: Any) -> bool:
    """Whether it is an ``nn.Module``. Does not import torch."""
    return hasattr(type(value), "named_parameters") and hasattr(type(value), "named_buffers")


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor of torch, or of a subclass."""
    return hasattr(type(value), "untyped_storage")


def _is_engine(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in _ENGINES


def _attributes(module: Any) -> Iterator[Any]:
    """Values that a module holds without registration."""
    import torch

    registered = vars(torch.nn.Module()).keys() | _HOOKS
    return (held for name, held in list(vars(module).items()) if name not in registered)


def _fields(value: Any) -> Iterable[Any]:
    """The attributes of an object. Runs no code of the object."""
    yield from list(getattr(value, "__dict__", {}).values())
    for cls in type(value).__mro__:
        for name in getattr(cls, "__slots__", ()):
            if isinstance(cls.__dict__.get(name), MemberDescriptorType):
                yield getattr(value, name, None)  # an empty slot raises AttributeError


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray) and value.nbytes > 0 and not value.dtype.hasobject


def _as_tensor(array: Any) -> Any:
    """A tensor over the same memory; a tensor of bytes where torch does not have the array's dtype."""
    import torch

    if not array.flags.c_contiguous and _is_array(array.base):
        return _as_tensor(array.base)  # a view keeps its whole base alive
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns about read-only arrays, such as mapped files
        try:
            return torch.from_numpy(array)
        except (TypeError, ValueError):
            return torch.from_numpy(array.reshape(-1).view("uint8"))
