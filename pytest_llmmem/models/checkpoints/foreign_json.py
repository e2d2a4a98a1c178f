"""Untrusted JSON (``config.json``, an index or a header), read within ``bounds`` or refused."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.bounds import (
    MAX_JSON_DEPTH,
    MAX_JSON_DIGITS,
    MAX_JSON_MARKS,
    MAX_READ_BYTES,
    TooMuch,
    out_of_bounds,
)
from pytest_llmmem.models.checkpoints.regular_files import RegularFile

_MARKS: Final = b'[]{},:"'
_NO_MARKS: Final = bytes(set(range(256)) - set(_MARKS))
_DIGITS_AS_0: Final = bytes.maketrans(b"123456789", b"000000000")
_BRACES_AS_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_STRING: Final = re.compile(rb'"[^"]*"')
_SURROGATES: Final = re.compile(rb"\\u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w")
_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed JSON text."""

    value: Any
    """The value. For a repeated key of an object, the last one counts, as in most readers."""

    repeated: tuple[str, ...]
    """Keys that occur twice in an object."""


def read_object(path: Path) -> Parsed:
    """Read the JSON object in a file. Raises ``CheckpointError`` for anything else."""
    with RegularFile(path) as file:
        text = file.read(0, MAX_READ_BYTES + 1)
    try:
        parsed = parse(text)
    except TooMuch as error:
        raise out_of_bounds(path, error) from None
    except ValueError as error:
        msg = f"{path} is not JSON ({error}): fetch that file again"
        raise CheckpointError(msg) from None
    if not isinstance(parsed.value, dict):
        msg = f"{path} holds a JSON {type(parsed.value).__name__} instead of an object: fetch that file again"
        raise CheckpointError(msg)
    return parsed


def parse(text: bytes) -> Parsed:
    """Parse a JSON text. Raises ``TooMuch`` beyond a limit, and ``ValueError`` for text that is not JSON in UTF-8."""
    _check_bounds(text)
    repeated: list[str] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) != len(pairs):
            repeated.extend(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return built

    return Parsed(json.loads(text.decode(), object_pairs_hook=build), tuple(repeated))


def _check_bounds(text: bytes) -> None:
    """Check the limits on the raw bytes before parsing: the parser itself has no limits."""
    if len(text) > MAX_READ_BYTES:
        msg = f"more than {MAX_READ_BYTES:,} bytes"
        raise TooMuch(msg)
    if b"0" * (MAX_JSON_DIGITS + 1) in text.translate(_DIGITS_AS_0):
        msg = f"a number of more than {MAX_JSON_DIGITS} digits"
        raise TooMuch(msg)
    marks = text.translate(None, _NO_MARKS)
    if len(marks) > MAX_JSON_MARKS:
        msg = f"more than {MAX_JSON_MARKS:,} brackets, commas, colons and quotes"
        raise TooMuch(msg)
    if b"\\" in text:
        unescaped = text.replace(b"\\\\", b"")
        if _HALF.search(_SURROGATES.sub(b"", unescaped)):
            msg = "half a surrogate pair, which is no text"
            raise ValueError(msg)
        marks = unescaped.replace(b'\\"', b"").translate(None, _NO_MARKS)  # an escaped quote does not end a string
    if _depth(marks) > MAX_JSON_DEPTH:
        msg = f"more than {MAX_JSON_DEPTH} objects and arrays in each other"
        raise TooMuch(msg)


def _depth(marks: bytes) -> int:
    """Nesting depth of the brackets, at most one more than ``MAX_JSON_DEPTH``. It may be too high where brackets do not match."""
    brackets = marks.translate(_BRACES_AS_BRACKETS, b",:").replace(b'""', b"")
    if b'"' in brackets:  # brackets inside of names
        brackets = _STRING.sub(b"", brackets)
    for depth in range(MAX_JSON_DEPTH + 1):
        if b"[]" not in brackets:
            return depth + brackets.count(b"[")
        brackets = brackets.replace(b"[]", b"")
    return MAX_JSON_DEPTH + 1
