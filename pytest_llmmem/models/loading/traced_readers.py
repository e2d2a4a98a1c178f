"""Wrappers of the functions that read checkpoints: each reports the file and the tensor that it is about to read."""

import functools
import os
from collections.abc import Callable
from typing import Any, Final, Self

Note = Callable[[str, str], None]
"""A function of the file name of a shard and the name of a tensor."""


class Progress:
    """Passes notes on until the end: a handle or a thread of the load may outlive the tracing."""

    def __init__(self, note: Note, *, lasts: bool) -> None:
        self.note = note
        self.lasts = lasts
        self.places: dict[int, tuple[str, str]] = {}
        """File and tensor by the address of its bytes in a mapped file."""

    def leave(self, shard: str = "") -> None:
        """Report a finished read. Where mapped tensors are followed, the shard stays reported while its tensors are used."""
        self.note(shard if self.lasts else "", "")

    def returned(self) -> None:
        """Report a finished read. Where mapped tensors are followed, its names stay reported until the next read."""
        if not self.lasts:
            self.note("", "")

    def end(self) -> None:
        note, self.note = self.note, _ignore
        note("", "")


def _ignore(shard: str, tensor: str) -> None:
    """Ignore reads after the end of the load."""


def _opening(safe_open: Any, progress: Progress) -> Any:
    @functools.wraps(safe_open, updated=())
    def followed(filename: Any, *arguments: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        return _File(safe_open(filename, *arguments, **options), _file_name(filename), progress)

    return followed


def _loading(load: Any, progress: Progress) -> Any:
    @functools.wraps(load)
    def followed(f: Any, *arguments: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        if not isinstance(f, str | os.PathLike):
            return load(f, *arguments, **options)
        progress.note(_file_name(f), "")
        try:
            return load(f, *arguments, **options)
        finally:
            progress.returned()

    return followed


def _file_name(path: Any) -> str:
    return os.path.basename(os.fsdecode(path))


def _parsing(init: Any, progress: Progress) -> Any:
    """Follow ``GGUFReader``: its header has the whole vocabulary, and its tensors are named when they are dequantized."""

    @functools.wraps(init)
    def followed(self: Any, path: Any, *arguments: Any, **options: Any) -> None:
        __tracebackhide__ = True
        progress.note(_file_name(path), "")
        try:
            init(self, path, *arguments, **options)
        finally:
            progress.returned()
        progress.places.update({_address(each.data): (_file_name(path), each.name) for each in self.tensors})

    return followed


def _dequantizing(dequantize: Any, progress: Progress) -> Any:
    @functools.wraps(dequantize)
    def followed(data: Any, *arguments: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        if (place := progress.places.get(_address(data))) is None:
            return dequantize(data, *arguments, **options)
        progress.note(*place)
        try:
            return dequantize(data, *arguments, **options)
        finally:
            progress.returned()

    return followed


def _mapping(new: Any, progress: Progress) -> Any:
    """Follow ``numpy.memmap``, whose pages are read later: only where the shard stays reported for as long."""

    @functools.wraps(new)
    def followed(cls: type, filename: Any, *arguments: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        if progress.lasts and isinstance(filename, str | os.PathLike):
            progress.note(_file_name(filename), "")
        return new(cls, filename, *arguments, **options)

    return followed


def _unpacking(get: Any, progress: Progress) -> Any:
    """Follow an open ``.npz``: each array is read when it is asked for."""

    @functools.wraps(get)
    def followed(self: Any, key: str) -> Any:
        __tracebackhide__ = True
        if (name := getattr(self.zip, "filename", None)) is None:
            return get(self, key)
        progress.note(_file_name(name), key)
        try:
            return get(self, key)
        finally:
            progress.returned()

    return followed


def _address(array: Any) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


FUNCTIONS: Final = (
    ("safetensors", "safe_open", _opening),
    ("torch", "load", _loading),
    ("numpy", "load", _loading),
    ("gguf", "dequantize", _dequantizing),
)
"""Library, name, and wrapper of the functions that read checkpoints."""
METHODS: Final = (
    ("gguf", "GGUFReader", "__init__", _parsing),
    ("numpy", "memmap", "__new__", _mapping),
    ("numpy.lib.npyio", "NpzFile", "__getitem__", _unpacking),
)
"""Library, class, method, and its wrapper. The class itself stays: libraries make subclasses of it."""


class _File:
    """An open safetensors file that reports each read."""

    __slots__ = ("_file", "_gave_tensors", "_progress", "_shard")

    def __init__(self, file: Any, shard: str, progress: Progress) -> None:
        self._file = file
        self._shard = shard
        self._progress = progress
        self._gave_tensors = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> Any:
        if error is None:
            # mapped tensors may be used later in any order; a slice is read when it is indexed
            self._progress.leave(self._shard if self._gave_tensors else "")
        return self._file.__exit__(kind, error, trace)

    def get_tensor(self, name: str) -> Any:
        __tracebackhide__ = True
        self._gave_tensors = True
        self._progress.note(self._shard, name)
        try:
            return self._file.get_tensor(name)
        finally:
            self._progress.returned()

    def get_tensors(self) -> Any:
        __tracebackhide__ = True
        self._gave_tensors = True
        self._progress.note(self._shard, "")
        try:
            return self._file.get_tensors()
        finally:
            self._progress.returned()

    def get_slice(self, name: str) -> "_Slice":
        return _Slice(self._file.get_slice(name), self._shard, name, self._progress)


class _Slice:
    """A tensor that is read when it is indexed."""

    __slots__ = ("_name", "_part", "_progress", "_shard")

    def __init__(self, part: Any, shard: str, name: str, progress: Progress) -> None:
        self._part = part
        self._shard = shard
        self._name = name
        self._progress = progress

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    def __getitem__(self, index: Any) -> Any:
        __tracebackhide__ = True
        self._progress.note(self._shard, self._name)
        try:
            return self._part[index]
        finally:
            self._progress.returned()
