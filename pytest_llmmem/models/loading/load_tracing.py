"""Reports the progress of a load, tensor by tensor, without changing the load.

The libraries read checkpoints through ``safetensors.safe_open``, ``torch.load`` and ``numpy.load``. While a load is
traced, every module that has one of these functions gets a wrapper in its place.
Tried with transformers 4.40.1, 4.57.6, 5.0.0 and 5.23.0, accelerate 0.30.1 to 1.15.0 and safetensors 0.4.3 and 0.8.0:
none checks the type of the object that ``safe_open`` returns.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from types import ModuleType
from typing import Any, Final, Literal, Self

Note = Callable[[str, str], None]
"""A function of the file name of a shard and the name of a tensor."""


@contextmanager
def follow_load(note: Note, *, mapped: Literal["followed", "left"] = "followed") -> Iterator[None]:
    """Call ``note`` before each tensor is read from a checkpoint, and with two empty names at the end.

    The tensor's name is empty where only the shard is known: the file is read as a whole (``torch.load``, ``load_file``),
    or its mapped tensors are used after it was closed. ``note`` is called in the thread that reads. Libraries that are
    not imported yet are neither traced nor imported. Weights read without a file name, as with ``disable_mmap=True``
    of transformers, are not reported.

    ``mapped="left"`` is for a whole test, where the end of a load is unknown: the names are empty as soon as a read
    returns. A load that is traced inside of such a test uses its own setting.
    """
    progress = _Progress(note, lasts=mapped == "followed")
    there = tuple(_replacements(progress))
    back = tuple((name, new, old) for name, old, new in there)
    try:
        _replace(there)
        yield
    finally:
        _replace(back)
        progress.end()


class _Progress:
    """Passes notes on until the end: a handle or a thread of the load may outlive the tracing."""

    def __init__(self, note: Note, *, lasts: bool) -> None:
        self.note = note
        self.lasts = lasts

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


def _replacements(progress: _Progress) -> Iterator[tuple[str, Any, Any]]:
    """Functions of the imported libraries that read checkpoints: name, function, and its wrapper."""
    for library, name, follow in _READERS:
        function = getattr(sys.modules.get(library), name, None)
        if function is not None:
            followed = follow(getattr(function, _FOLLOWS, function), progress)
            if not progress.lasts:
                setattr(followed, _FOLLOWS, function)
            yield name, function, followed


def _replace(replacements: Sequence[tuple[str, Any, Any]]) -> None:
    """Replace each function in every module that has it under that name, also in modules imported later."""
    if not replacements:
        return
    for module in find_readers():
        values = vars(module)
        for name, old, new in replacements:
            if values.get(name) is old:
                values[name] = new


def find_readers() -> list[ModuleType]:
    """The modules that have ``safe_open`` or ``load`` under its own name.

    Each module is examined once in this process and its forks: reading an inherited module copies its page, and all modules
    together take ten megabytes.
    """
    # new modules are at the end
    fresh = list(islice(reversed(sys.modules), max(0, len(sys.modules) - _looked_at[0])))
    _looked_at[0] = len(sys.modules)
    for name in fresh:
        module = sys.modules.get(name)
        if isinstance(module, ModuleType) and not _NAMES.isdisjoint(vars(module)) and module not in _readers:
            _readers.append(module)
    return _readers


_NAMES: Final = frozenset({"safe_open", "load"})
_readers: list[ModuleType] = []
_looked_at = [0]
"""Number of modules at the last search."""


def _opening(safe_open: Any, progress: _Progress) -> Any:
    @functools.wraps(safe_open, updated=())
    def followed(filename: Any, *arguments: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        return _File(safe_open(filename, *arguments, **options), _file_name(filename), progress)

    return followed


def _loading(load: Any, progress: _Progress) -> Any:
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


_READERS: Final = (("safetensors", "safe_open", _opening), ("torch", "load", _loading), ("numpy", "load", _loading))
_FOLLOWS: Final = "llmmem_follows"
"""Attribute of a wrapper for a whole test: the wrapped function. A load in that test wraps it instead."""


class _File:
    """An open safetensors file that reports each read."""

    __slots__ = ("_file", "_gave_tensors", "_progress", "_shard")

    def __init__(self, file: Any, shard: str, progress: _Progress) -> None:
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

    def __init__(self, part: Any, shard: str, name: str, progress: _Progress) -> None:
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
