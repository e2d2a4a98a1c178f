"""A stack machine for untrusted pickles. It builds numbers, strings, tuples and dicts, and nothing else.

No name in a pickle is imported or called, nothing recurses, and the number of operations is bounded.
``pickle.Unpickler`` cannot read such a file: it hashes every key, and a key of two million nested tuples crashes the interpreter.
"""

from typing import Any, Final, NamedTuple, Protocol

from pytest_llmmem.models.checkpoints.bounds import MAX_OPERATIONS, TooMuch


class Meaning(Protocol):
    """The names that a pickle of one kind of data may use. Each method raises ``ValueError`` for anything else."""

    def find(self, module: str, name: str) -> Any:
        """A placeholder for a class or a function."""

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """A placeholder for the call's result; ``DICT`` for an empty dict."""

    def refer(self, identity: Any) -> Any:
        """A placeholder for a persistent object outside of the pickle."""


class Other(NamedTuple):
    """A placeholder for unused data: it only keeps its place on the stack."""

    kind: str


DICT: Final = Other("dict")
_BYTES: Final = Other("bytes")
_FLOAT: Final = Other("float")
_LIST: Final = Other("list")
_NONE: Final = Other("None")
_SET: Final = Other("set")


def refusal(what: str) -> ValueError:
    """The error for an object that no dict of tensors contains."""
    return ValueError(f"its pickle holds more than tensors ({what})")


class Result(NamedTuple):
    """The result of running a pickle."""

    value: Any
    operations: int
    end: int
    """End of the pickle in the file: another pickle may follow."""


def run(pickled: bytes, meaning: Meaning, *, start: int = 0) -> Result:
    """Run the pickle that begins at ``start``.

    Raises ``TooMuch`` for more than ``MAX_OPERATIONS``, and ``ValueError`` for damaged or unsupported data.
    """
    try:
        return _run(pickled, meaning, start)
    except (IndexError, KeyError, UnicodeDecodeError):
        msg = "its pickle is damaged"
        raise ValueError(msg) from None


def _run(pickled: bytes, meaning: Meaning, at: int) -> Result:  # noqa: C901, PLR0912, PLR0915 -- the format's table, in one place
    """Run the operations of ``pickletools`` in the standard library. The most frequent ones come first.

    A truncated argument is detected at the next operation.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
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
            case 0x52 | 0x81:  # REDUCE, NEWOBJ
                arguments, function = stack.pop(), stack.pop()
                if type(arguments) is not tuple:
                    raise refusal("a call without arguments")
                made = meaning.call(function, arguments)
                stack.append({} if made is DICT else made)
            case 0x58:  # BINUNICODE
                start, at = _next(pickled, at, 4)
                stack.append(pickled[start:at].decode())
            case 0x51:  # BINPERSID
                stack.append(meaning.refer(stack.pop()))
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
                stack.append(_find(module, name, meaning))
            case 0x93:  # STACK_GLOBAL
                name, module = stack.pop(), stack.pop()
                stack.append(_find(module, name, meaning))
            case 0x7D:  # EMPTY_DICT
                stack.append({})
            case 0x73:  # SETITEM
                value, name = stack.pop(), stack.pop()
                _set_items(stack, [name, value])
            case 0x75:  # SETITEMS
                items = _pop_to(marks.pop(), stack)
                _set_items(stack, items)
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
                return Result(stack.pop(), number, at)
            case _:
                what = f"the operation {operation:#04x}"
                raise refusal(what)
    msg = f"a pickle of more than {MAX_OPERATIONS:,} operations"
    raise TooMuch(msg)


def _pop_to(height: int, stack: list[Any]) -> list[Any]:
    values = stack[height:]
    del stack[height:]
    return values


def _next(pickled: bytes, at: int, length_bytes: int) -> tuple[int, int]:
    """Start and end of an argument with a length prefix."""
    start = at + length_bytes
    return start, start + int.from_bytes(pickled[at:start], "little")


def _lines(pickled: bytes, at: int) -> tuple[str, str, int]:
    """Two lines, and the end of the second."""
    middle = pickled.find(b"\n", at)
    end = pickled.find(b"\n", middle + 1)
    if -1 in {middle, end}:
        raise IndexError
    return pickled[at:middle].decode(), pickled[middle + 1 : end].decode(), end + 1


def _set_items(stack: list[Any], items: list[Any]) -> None:
    """Store items in a dict. In the top-level dict every key must be a name; in nested dicts other keys are skipped."""
    target = stack[-1]
    if type(target) is not dict:
        return
    for name, value in zip(items[::2], items[1::2], strict=False):
        if type(name) is str or type(name) is int:
            target[name] = value
        elif len(stack) == 1:
            raise refusal("a key that is no name")


def _find(module: Any, name: Any, meaning: Meaning) -> Any:
    if type(module) is not str or type(name) is not str:
        raise refusal("a function without a name")
    return meaning.find(module, name)
