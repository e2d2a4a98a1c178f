"""Memory that a test pays for modules that it imports first: measured at each import, reported when it is much."""

import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any, Final

from pytest_llmmem.core.sizes import format_size

_LEAST_BYTES: Final = 5_000_000
_MOST: Final = 3
"""Modules that are named."""
_MOSTLY: Final = 0.8
"""Share of an import's memory. A module of another package that takes so much of it is named in its place."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A module whose import took much memory."""

    module: str
    bytes: int
    """Anonymous memory that the import added, the modules that it imports included."""


def import_notes(imported: Sequence[Imported]) -> tuple[str, ...]:
    """The remark about them; empty without any."""
    if not imported:
        return ()
    told = sorted(imported, key=lambda each: -each.bytes)[:_MOST]
    costs = ", ".join(f"{format_size(each.bytes)} for importing {each.module}" for each in told)
    ahead = " ".join(f"--llm-preload={each.module}" for each in told)
    return (f"of it {costs}: {ahead} imports {'them' if len(told) > 1 else 'it'} before the tests",)


@contextmanager
def import_costs(report: Callable[[Imported], None]) -> Iterator[None]:
    """Call ``report`` after each import that took 5 MB or more. Imports in other threads and in forks are ignored.

    Where a process cannot read its own memory in a few microseconds (not Linux), nothing is reported.
    """
    if sys.platform != "linux":
        yield
        return
    finder = _Finder(report)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        with suppress(ValueError):  # a test may have restored the list itself
            sys.meta_path.remove(finder)


def _left_out_of_tracebacks(function: Any) -> Any:
    """Name the import machinery as the function's file.

    Python leaves that file's frames out of the traceback of a module that raises (``remove_importlib_frames`` in import.c).
    Frames of another file between them would bring all of them back.
    """
    function.__code__ = function.__code__.replace(co_filename="<frozen importlib._bootstrap>")
    return function


class _Finder(MetaPathFinder):
    """Finds no module by itself: it measures the loaders that the other finders give."""

    def __init__(self, report: Callable[[Imported], None]) -> None:
        self._report = report
        self._pid, self._thread = os.getpid(), threading.get_ident()
        self._running: list[_Import] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if self._measures and hasattr(spec.loader, "exec_module") and _is_import(sys._getframe(1)):  # noqa: SLF001
                    spec.loader = _Measured(spec.loader, self)
                return spec
        return None

    @property
    def _measures(self) -> bool:
        return os.getpid() == self._pid and threading.get_ident() == self._thread

    @_left_out_of_tracebacks
    def run(self, loader: Any, module: ModuleType) -> None:
        """Import a module, and report it if no other import is going on around it."""
        this = _Import(module.__name__, _private_bytes())
        self._running.append(this)
        try:
            loader.exec_module(module)
        finally:
            self._running.pop()
            this.end(_private_bytes())
            if self._running:
                self._running[-1].inner.append(this)
            elif this.bytes >= _LEAST_BYTES and self._measures:
                self._report(Imported(this.cause.module, this.cause.bytes))


@dataclass(slots=True)
class _Import:
    """An import that is going on, or that has ended within one that is."""

    module: str
    before_bytes: int
    bytes: int = 0
    inner: "list[_Import]" = field(default_factory=list)

    def end(self, now_bytes: int) -> None:
        self.bytes = now_bytes - self.before_bytes
        # no import of less is ever named: a package has hundreds
        self.inner = [each for each in self.inner if each.bytes >= _LEAST_BYTES]

    @property
    def cause(self) -> "_Import":
        """The import that took most of it: this one, or one of another package."""
        for each in self.inner:
            if each.bytes >= _MOSTLY * self.bytes:
                cause = each.cause
                return self if _package(cause.module) == _package(self.module) else cause
        return self


class _Measured(Loader):
    """The loader of one module. Gives its place back to the original before the module runs."""

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    @_left_out_of_tracebacks
    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._finder.run(self._loader, module)


def _is_import(finding: FrameType) -> bool:
    """Whether a module is found to be imported: ``importlib.util.find_spec`` gives its caller the true loader."""
    asked_by = finding.f_back
    return asked_by is not None and asked_by.f_code.co_name == "_find_and_load_unlocked"


def _package(module: str) -> str:
    return module.partition(".")[0]


def _private_bytes() -> int:
    """Anonymous memory of this process: the resident pages without those of files and shared memory (proc(5), statm)."""
    with open("/proc/self/statm", "rb", buffering=0) as file:
        _, resident, shared, *_ = file.read().split()
    return (int(resident) - int(shared)) * mmap.PAGESIZE
