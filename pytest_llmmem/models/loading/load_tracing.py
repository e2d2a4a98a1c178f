"""Reports the progress of a load, tensor by tensor, without changing the load.

The libraries read checkpoints through ``safetensors.safe_open``, ``torch.load``, ``numpy.load``, ``numpy.memmap`` and
``gguf``. While a load is traced, every module that has one of these functions gets a wrapper in its place.
Tried with transformers 4.40.1, 4.57.6, 5.0.0 and 5.23.0, accelerate 0.30.1 to 1.15.0 and safetensors 0.4.3 and 0.8.0:
none checks the type of the object that ``safe_open`` returns.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from types import ModuleType
from typing import Any, Final, Literal, NamedTuple, Self

from pytest_llmmem.models.loading.traced_readers import FUNCTIONS, METHODS, Note, Progress


@contextmanager
def follow_load(note: Note, *, mapped: Literal["followed", "left"] = "followed") -> Iterator[None]:
    """Call ``note`` before each tensor is read from a checkpoint, and with two empty names at the end.

    The tensor's name is empty where only the shard is known: the file is read as a whole (``torch.load``, ``load_file``),
    or its mapped tensors are used after it was closed. ``note`` is called in the thread that reads. Libraries that are
    not imported yet are neither traced nor imported. Weights read without a file name, as with ``disable_mmap=True``
    of transformers, are not reported.

    ``mapped="left"`` is for whole tests, where the end of a load is unknown: the names are empty as soon as a read
    returns. A load that is traced inside of such a test uses its own setting.
    """
    progress = Progress(note, lasts=mapped == "followed")
    functions, methods = tuple(_replacements(progress)), tuple(_methods(progress))
    try:
        _replace(functions)
        for cls, name, _, followed in methods:
            setattr(cls, name, followed)
        yield
    finally:
        for cls, name, method, _ in methods:
            setattr(cls, name, method)
        _replace(tuple(each.reversed for each in functions))
        progress.end()


def imported_libraries() -> frozenset[str]:
    """The libraries whose reads can be traced now."""
    return frozenset(library for library in _LIBRARIES if library in sys.modules)


class _Replacement(NamedTuple):
    """A function that takes the place of another, under its name."""

    name: str
    old: Any
    new: Any

    @property
    def reversed(self) -> Self:
        return self._replace(old=self.new, new=self.old)


def _replacements(progress: Progress) -> Iterator[_Replacement]:
    """Functions of the imported libraries that read checkpoints, with their wrappers."""
    for library, name, follow in FUNCTIONS:
        function = getattr(sys.modules.get(library), name, None)
        if function is not None:
            yield _Replacement(name, function, _followed(follow, function, progress))


def _methods(progress: Progress) -> Iterator[tuple[type, str, Any, Any]]:
    """The same for methods: class, name, method, wrapper."""
    for library, class_name, name, follow in METHODS:
        cls = getattr(sys.modules.get(library), class_name, None)
        if isinstance(cls, type) and name in vars(cls):
            method = vars(cls)[name]
            yield cls, name, method, _followed(follow, getattr(method, "__func__", method), progress)


def _followed(follow: Callable[[Any, Progress], Any], function: Any, progress: Progress) -> Any:
    followed = follow(getattr(function, _FOLLOWS, function), progress)
    if not progress.lasts:
        setattr(followed, _FOLLOWS, function)
    return followed


def _replace(replacements: Sequence[_Replacement]) -> None:
    """Replace each function in every module that has it under that name, also in modules imported later."""
    if not replacements:
        return
    for module in find_readers():
        values = vars(module)
        for name, old, new in replacements:
            if values.get(name) is old:
                values[name] = new


def find_readers() -> list[ModuleType]:
    """The modules that have ``safe_open``, ``load`` or ``dequantize`` under its own name.

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


_LIBRARIES: Final = frozenset((*(each[0] for each in FUNCTIONS), *(each[0] for each in METHODS)))
_NAMES: Final = frozenset(name for _, name, _ in FUNCTIONS)
_readers: list[ModuleType] = []
_looked_at = [0]
"""Number of modules at the last search."""
_FOLLOWS: Final = "llmmem_follows"
"""Attribute of a wrapper for a whole test: the wrapped function. A load in that test wraps it instead."""
