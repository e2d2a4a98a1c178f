"""The pickle in a ``.bin`` file: the meaning of its names, and the tensors that it describes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.pickle_machine import DICT, Other, refusal, run
from pytest_llmmem.models.checkpoints.tensors import BY_STORAGE, DTYPES, Tensor, tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDict:
    """The state dict in a pickle."""

    tensors: tuple[Tensor, ...]
    """Tensors. Tied weights occur once, under their first name, as in a safetensors file."""

    operations: int
    """Number of operations that the pickle took."""

    end: int
    """End of the pickle."""


def read_state_dict(pickled: bytes, *, start: int = 0) -> StateDict:
    """The tensors of a pickled dict and of dicts in it. All other objects are skipped, an optimizer's state too.

    Raises ``TooMuch`` for a pickle beyond a limit, and ``ValueError`` for one that is damaged or not a dict of data.
    """
    state, operations, end = run(pickled, _Torch(), start=start)
    if not isinstance(state, dict):
        kind = state.kind if isinstance(state, Other) else type(state).__name__.removeprefix("_").lower()
        msg = f"it holds a {kind}, not a dict of tensors"
        raise ValueError(msg)  # noqa: TRY004 -- an error of the file, not of an argument
    found = list(_tensors(state))
    is_one_dict = len({prefix for prefix, _, _ in found}) == 1
    names: dict[_Tensor, str] = {}
    for prefix, name, value in found:
        names.setdefault(value, name if is_one_dict else f"{prefix}{name}")
    tensors = tuple(tensor(name, value.storage.dtype, value.shape) for value, name in names.items())
    return StateDict(tensors=tensors, operations=operations, end=end)


def skip(pickled: bytes, start: int) -> int:
    """End of the pickle that begins at ``start``. Raises the errors of ``read_state_dict``."""
    return run(pickled, _Torch(), start=start).end


def _tensors(state: Mapping[str | int, Any]) -> Iterator[tuple[str, str, "_Tensor"]]:
    """The path of a tensor's dict, the tensor's name there, and the tensor. A dict that contains itself is read once."""
    seen, waiting = {id(state)}, [("", state)]
    for path, each in waiting:
        for name, value in each.items():
            if isinstance(value, _Tensor):
                yield path, str(name), value
            elif type(value) is dict and id(value) not in seen and not str(name).startswith("optim"):
                seen.add(id(value))
                waiting.append((f"{path}{name}.", value))


class _StorageType(NamedTuple):
    """``torch.HalfStorage``."""

    dtype: str


class _Storage(NamedTuple):
    """A file of the archive with the numbers of a storage."""

    dtype: str
    key: str


class _Tensor(NamedTuple):
    """A placeholder for a tensor. Two of them are equal when they share one storage (tied weights)."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Function(NamedTuple):
    """A function that the pickle of a state dict calls."""

    makes: Literal["tensor", "parameter", "dict", "data"]


_TENSOR: Final = _Function("tensor")
_PARAMETER: Final = _Function("parameter")
_ORDERED_DICT: Final = _Function("dict")
_DATA: Final = _Function("data")
_OBJECT: Final = Other("object")
_BUILTINS: Final = frozenset({"set", "dict", "int", "float", "list"})
_FUNCTIONS: Final = {
    ("torch._utils", "_rebuild_tensor_v2"): _TENSOR,
    ("torch._utils", "_rebuild_parameter"): _PARAMETER,
    ("collections", "OrderedDict"): _ORDERED_DICT,
    ("collections", "defaultdict"): _ORDERED_DICT,
    # objects that trainings write beside their tensors: they are not used
    ("argparse", "Namespace"): _DATA,
    ("torch", "Size"): _DATA,
    ("torch", "device"): _DATA,
    ("numpy", "dtype"): _DATA,
    ("numpy", "ndarray"): _DATA,
    ("numpy.core.multiarray", "scalar"): _DATA,
    ("numpy.core.multiarray", "_reconstruct"): _DATA,
    ("numpy._core.multiarray", "scalar"): _DATA,
    ("numpy._core.multiarray", "_reconstruct"): _DATA,
    ("_codecs", "encode"): _DATA,
}


class _Torch:
    """The names of torch in a pickle. None of them is imported or called."""

    def find(self, module: str, name: str) -> _Function | _StorageType:
        if function := _FUNCTIONS.get((module, name)):
            return function
        if module in {"builtins", "__builtin__"} and name in _BUILTINS:
            return _DATA
        if module == "torch" and name in DTYPES:
            return _DATA
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
        if function is _ORDERED_DICT and len(arguments) < 2:
            return DICT
        if function is _DATA:
            return _OBJECT
        raise refusal("a call that makes no tensor")

    def refer(self, identity: Any) -> _Storage:
        if type(identity) is tuple and len(identity) > 2:
            _, kind, key, *_ = identity
            if type(kind) is _StorageType and type(key) is str:
                return _Storage(kind.dtype, key)
        raise refusal("a reference to something that is no storage")


def _are_sizes(value: Any) -> bool:
    return type(value) is tuple and {int}.issuperset(map(type, value))
