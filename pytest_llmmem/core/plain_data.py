"""Records as plain JSON data, and back."""

import dataclasses
import types
import typing
from typing import Any


def to_plain(value: Any) -> Any:
    """Convert a value to JSON's types: without records and tuples."""
    if dataclasses.is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def build(kind: Any, value: Any) -> Any:
    """Build a value of an annotated type from plain JSON."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        types_ = typing.get_type_hints(kind)
        known = {field.name for field in dataclasses.fields(kind)}
        return kind(**{key: build(types_[key], item) for key, item in value.items() if key in known})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return tuple(build(arguments[0], item) for item in value)
    if origin in {types.UnionType, typing.Union} and value is not None:
        return build(next(argument for argument in arguments if argument is not types.NoneType), value)
    return value
