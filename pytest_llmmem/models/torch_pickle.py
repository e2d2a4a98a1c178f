"""Pickles of ``torch.save``, read by a stack machine that knows what a dict of tensors is made of, and nothing else.

Nothing that a pickle names is imported or called, nothing recurses, and there is an end to the work. ``pickle.Unpickler`` is
no reader for a stranger's file: it hashes every key, and a tuple of two million in each other ends the interpreter.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.bounds import MAX_OPERATIONS, TooMuch
from pytest_llmmem.models.tensors import BY_STORAGE, Tensor, tensor


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
    try:
        state, operations = _run(pickled)
    except (IndexError, KeyError, UnicodeDecodeError):
        msg = "its pickle is damaged"
        raise ValueError(msg) from None
    if not isinstance(state, dict):
        kind = state.kind if isinstance(state, _Other) else type(state).__name__.removeprefix("_").lower()
        msg = f"it holds a {kind}, not a dict of tensors"
        raise ValueError(msg)  # noqa: TRY004 -- of the file, not of an argument
    names: dict[_Tensor, str] = {}
    for name, value in state.items():
        if isinstance(value, _Tensor):
            names.setdefault(value, str(name))
    tensors = tuple(tensor(name, found.storage.dtype, found.shape) for found, name in names.items())
    return StateDict(tensors=tensors, operations=operations)


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


class _StorageType(NamedTuple):
    """``torch.HalfStorage``."""

    dtype: str


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


class _Other(NamedTuple):
    """What stands in for whatever is no part of a tensor."""

    kind: str


_BYTES: Final = _Other("bytes")
_DICT: Final = _Other("dict")
_FLOAT: Final = _Other("float")
_LIST: Final = _Other("list")
_NONE: Final = _Other("None")
_SET: Final = _Other("set")


def _run(pickled: bytes) -> tuple[Any, int]:  # noqa: C901, PLR0912, PLR0915 -- the table of the format, in one place
    """What is left on the stack at the end, and how many operations there were.

    They are those of ``pickletools`` in the standard library; the ones that each tensor has come first. An argument that ends
    too early is noticed where the next operation should be.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    at = 0
    for number in range(MAX_OPERATIONS):
        operation, at = pickled[at], at + 1
        match operation:
            case 0x72:  # LONG_BINPUT
                memo[int.from_bytes(pickled[at : at + 4], "little")] = stack[-1]
                at += 4
            case 0x4B:  # BININT1
                stack.append(pickled[at])
                at += 1
            case 0x68:  # BINGET
                stack.append(memo[pickled[at]])
                at += 1
            case 0x28:  # MARK
                marks.append(len(stack))
            case 0x74:  # TUPLE
                height = marks.pop()
                stack[height:] = [tuple(stack[height:])]
            case 0x86:  # TUPLE2
                second = stack.pop()
                stack[-1] = (stack[-1], second)
            case 0x52:  # REDUCE
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments) if function is not _ORDERED_DICT else _new_dict(stack))
            case 0x58:  # BINUNICODE
                start, at = _next(pickled, at, 4)
                stack.append(pickled[start:at].decode())
            case 0x51:  # BINPERSID
                stack.append(_find_storage(stack.pop()))
            case 0x29:  # EMPTY_TUPLE
                stack.append(())
            case 0x88 | 0x89:  # NEWTRUE, NEWFALSE
                stack.append(_NONE)
            case 0x71:  # BINPUT
                memo[pickled[at]] = stack[-1]
                at += 1
            case 0x94:  # MEMOIZE
                memo[len(memo)] = stack[-1]
            case 0x6A:  # LONG_BINGET
                stack.append(memo[int.from_bytes(pickled[at : at + 4], "little")])
                at += 4
            case 0x8C | 0x8D:  # SHORT_BINUNICODE, BINUNICODE8
                start, at = _next(pickled, at, 1 if operation == 0x8C else 8)
                stack.append(pickled[start:at].decode())
            case 0x4D:  # BININT2
                stack.append(int.from_bytes(pickled[at : at + 2], "little"))
                at += 2
            case 0x4A:  # BININT
                stack.append(int.from_bytes(pickled[at : at + 4], "little", signed=True))
                at += 4
            case 0x8A:  # LONG1
                start, at = _next(pickled, at, 1)
                stack.append(int.from_bytes(pickled[start:at], "little", signed=True))
            case 0x85:  # TUPLE1
                stack[-1] = (stack[-1],)
            case 0x87:  # TUPLE3
                third, second = stack.pop(), stack.pop()
                stack[-1] = (stack[-1], second, third)
            case 0x63:  # GLOBAL
                module, name, at = _lines(pickled, at)
                stack.append(_find_function(module, name))
            case 0x93:  # STACK_GLOBAL
                name, module = stack.pop(), stack.pop()
                stack.append(_find_function(module, name))
            case 0x7D:  # EMPTY_DICT
                stack.append(_new_dict(stack))
            case 0x73:  # SETITEM
                value, name = stack.pop(), stack.pop()
                _set_items(stack[-1], [name, value])
            case 0x75:  # SETITEMS
                items = _pop_to(marks.pop(), stack)
                _set_items(stack[-1], items)
            case 0x42 | 0x43 | 0x8E:  # BINBYTES, SHORT_BINBYTES, BINBYTES8
                _, at = _next(pickled, at, {0x42: 4, 0x43: 1, 0x8E: 8}[operation])
                stack.append(_BYTES)
            case 0x47:  # BINFLOAT
                stack.append(_FLOAT)
                at += 8
            case 0x4E:  # NONE
                stack.append(_NONE)
            case 0x5D:  # EMPTY_LIST
                stack.append(_LIST)
            case 0x8F:  # EMPTY_SET
                stack.append(_SET)
            case 0x61 | 0x62:  # APPEND, BUILD
                stack.pop()
            case 0x65 | 0x90:  # APPENDS, ADDITEMS
                _pop_to(marks.pop(), stack)
            case 0x80:  # PROTO
                at += 1
            case 0x95:  # FRAME
                at += 8
            case 0x2E:  # STOP
                return stack.pop(), number
            case _:
                raise _refusal("the operation", hex(operation))
    msg = f"a pickle of more than {MAX_OPERATIONS:,} operations"
    raise TooMuch(msg)


def _pop_to(height: int, stack: list[Any]) -> list[Any]:
    values = stack[height:]
    del stack[height:]
    return values


def _next(pickled: bytes, at: int, length_bytes: int) -> tuple[int, int]:
    """Where an argument starts and ends whose length stands before it."""
    start = at + length_bytes
    return start, start + int.from_bytes(pickled[at:start], "little")


def _lines(pickled: bytes, at: int) -> tuple[str, str, int]:
    """Two lines, and where they end."""
    middle = pickled.find(b"\n", at)
    end = pickled.find(b"\n", middle + 1)
    if -1 in {middle, end}:
        raise IndexError
    return pickled[at:middle].decode(), pickled[middle + 1 : end].decode(), end + 1


def _new_dict(stack: list[Any]) -> dict[str | int, Any] | _Other:
    """The first thing of all is what the file holds; nothing is asked of a dict in it."""
    return _DICT if stack else {}


def _set_items(target: Any, items: list[Any]) -> None:
    if type(target) is not dict:
        return
    for name, value in zip(items[::2], items[1::2], strict=False):
        if type(name) is not str and type(name) is not int:
            raise _refusal("a key that is no name")
        target[name] = value


def _call(function: Any, arguments: Any) -> _Tensor:
    if type(arguments) is tuple:
        if function is _TENSOR and len(arguments) > 3:
            storage, offset, shape, stride, *_ = arguments
            if type(storage) is _Storage and type(offset) is int and _are_sizes(shape) and _are_sizes(stride):
                return _Tensor(storage, offset, shape, stride)
        if function is _PARAMETER and arguments and type(arguments[0]) is _Tensor:
            return arguments[0]
    raise _refusal("a call that makes no tensor")


def _are_sizes(value: Any) -> bool:
    return type(value) is tuple and {int}.issuperset(map(type, value))


def _find_function(module: Any, name: Any) -> _Function | _StorageType:
    if not isinstance(module, str) or not isinstance(name, str):
        raise _refusal("a function without a name")
    if function := _FUNCTIONS.get((module, name)):
        return function
    if module == "torch" and name in BY_STORAGE:
        return _StorageType(BY_STORAGE[name].name)
    raise _refusal("it asks for", f"{excerpt(module)}.{excerpt(name)}")


def _find_storage(identity: Any) -> _Storage:
    if type(identity) is tuple and len(identity) > 2:
        _, kind, key, *_ = identity
        if type(kind) is _StorageType and type(key) is str:
            return _Storage(kind.dtype, key)
    raise _refusal("a reference to something that is no storage")


def _refusal(*what: str) -> ValueError:
    return ValueError(f"its pickle holds more than tensors ({' '.join(what)})")
