"""Every tensor that an object holds, whatever the object is: a model, a pipeline, a dict, an engine of one's own."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, Final, NamedTuple

_LEAVES: Final = (
    str, bytes, bytearray, int, float, complex, type(None), type, ModuleType, FunctionType, BuiltinFunctionType, MethodType,
)  # fmt: skip
"""Nothing is looked for in these."""

_OBJECTS_DEEP: Final = 3
"""Plain objects in each other that are looked into, from the root or a module on: a server's engine, its runner, its cache."""

_HOOKS: Final = frozenset({"_hf_hook", "_old_forward"})
"""What accelerate adds to a module: it may read a weight from disk when it is asked for one."""


class Found(NamedTuple):
    """A module or a tensor below an object."""

    value: Any
    """An ``nn.Module``, without its submodules, or a tensor."""

    is_attribute: bool
    """A tensor that a module holds beside its parameters and buffers: in an attribute, a list, a cache."""


def walk(root: Any) -> Iterator[Found]:
    """Every ``nn.Module`` and every tensor outside of one, each once.

    Looks into dicts, lists, tuples, sets and attributes. Calls no property and asks no lazy mapping: a weight that is read
    when it is asked for stays where it is. Numpy arrays come as the torch tensors that share their memory.
    """
    seen: set[int] = set()
    waiting: list[tuple[Any, int, bool]] = [(root, 0, False)]
    while waiting:
        value, depth, is_attribute = waiting.pop()
        if isinstance(value, _LEAVES) or id(value) in seen:
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
    """Whether it is an ``nn.Module``; torch is not imported to find out."""
    return hasattr(type(value), "named_parameters") and hasattr(type(value), "named_buffers")


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor of torch, a subclass included."""
    return hasattr(type(value), "untyped_storage")


def _attributes(module: Any) -> Iterator[Any]:
    """What a module holds besides what it has registered."""
    import torch

    registered = vars(torch.nn.Module()).keys() | _HOOKS
    return (held for name, held in list(vars(module).items()) if name not in registered)


def _fields(value: Any) -> Iterable[Any]:
    """The attributes of an object, without calling anything of it."""
    yield from list(getattr(value, "__dict__", {}).values())
    for cls in type(value).__mro__:
        for name in getattr(cls, "__slots__", ()):
            if isinstance(cls.__dict__.get(name), MemberDescriptorType):
                yield getattr(value, name, None)  # an empty slot raises AttributeError


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray) and value.nbytes > 0 and not value.dtype.hasobject


def _as_tensor(array: Any) -> Any:
    """A tensor over the same memory; of bytes where torch does not have the array's dtype."""
    import torch

    if not array.flags.c_contiguous and _is_array(array.base):
        return _as_tensor(array.base)  # a view keeps all of its base alive
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns of arrays that cannot be written to: mapped files
        try:
            return torch.from_numpy(array)
        except (TypeError, ValueError):
            return torch.from_numpy(array.reshape(-1).view("uint8"))
