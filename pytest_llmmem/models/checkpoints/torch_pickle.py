"""The pickle in a ``.bin`` file: what the names in it mean, and which tensors it describes."""

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.pickle_machine import DICT, Other, refusal, run
from pytest_llmmem.models.checkpoints.tensors import BY_STORAGE, Tensor, tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDict:
    """What a pickle holds."""

    tensors: tuple[Tensor, ...]
    """Tied weights once, under their first name, as in a safetensors file."""

    operations: int
    """How many it took to build them."""


def read_state_dict(pickled: bytes) -> StateDict:
    """The tensors of a pickled dict; what else is in it is passed over.

    Raises ``TooMuch`` for a pickle that is out of bounds, and ``ValueError`` for one that is damaged or no dict of data.
    """
    state, operations = run(pickled, _Torch())
    if not isinstance(state, dict):
        kind = state.kind if isinstance(state, Other) else type(state).__name__.removeprefix("_").lower()
        msg = f"it holds a {kind}, not a dict of tensors"
        raise ValueError(msg)  # noqa: TRY004 -- of the file, not of an argument
    names: dict[_Tensor, str] = {}
    for name, value in state.items():
        if isinstance(value, _Tensor):
            names.setdefault(value, str(name))
    tensors = tuple(tensor(name, found.storage.dtype, found.shape) for found, name in names.items())
    return StateDict(tensors=tensors, operations=operations)


class _StorageType(NamedTuple):
    """``torch.HalfStorage``."""

    dtype: str


class _Storage(NamedTuple):
    """A file of the archive, which holds numbers."""

    dtype: str
    key: str


class _Tensor(NamedTuple):
    """What stands in for a tensor: equal when two names share one place (tied weights)."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Function(NamedTuple):
    """What the pickle of a state dict calls."""

    makes: Literal["tensor", "parameter", "dict"]


_TENSOR: Final = _Function("tensor")
_PARAMETER: Final = _Function("parameter")
_ORDERED_DICT: Final = _Function("dict")
_FUNCTIONS: Final = {
    ("torch._utils", "_rebuild_tensor_v2"): _TENSOR,
    ("torch._utils", "_rebuild_parameter"): _PARAMETER,
    ("collections", "OrderedDict"): _ORDERED_DICT,
}


class _Torch:
    """Nothing of torch is called."""

    def find(self, module: str, name: str) -> _Function | _StorageType:
        if function := _FUNCTIONS.get((module, name)):
            return function
        if module == "torch" and name in BY_STORAGE:
            return _StorageType(BY_STORAGE[name].name)
        what = f"it asks for {excerpt(module)}.{excerpt(name)}"
        raise refusal(what)

    def call(self, function: Any, arguments: tuple[Any, ...]) -> _Tensor | Other:
        if function is _TENSOR and len(arguments) > 3:
            storage, offset, shape, stride, *_ = arguments
            if type(storage) is _Storage and type(offset) is int and _are_sizes(shape) and _are_sizes(stride):
                return _Tensor(storage, offset, shape, stride)
        if function is _PARAMETER and arguments and type(arguments[0]) is _Tensor:
            return arguments[0]
        if function is _ORDERED_DICT and not arguments:
            return DICT
        raise refusal("a call that makes no tensor")

    def refer(self, identity: Any) -> _Storage:
        if type(identity) is tuple and len(identity) > 2:
            _, kind, key, *_ = identity
            if type(kind) is _StorageType and type(key) is str:
                return _Storage(kind.dtype, key)
        raise refusal("a reference to something that is no storage")


def _are_sizes(value: Any) -> bool:
    return type(value) is tuple and {int}.issuperset(map(type, value))
