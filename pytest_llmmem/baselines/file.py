"""The baselines file on disk: whole or not there, and what several sessions write at once is all in it."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pytest_llmmem.baselines import document
from pytest_llmmem.baselines.reading import patiently, read_text
from pytest_llmmem.baselines.values import Baseline, Baselines
from pytest_llmmem.core.errors import BaselineError
from pytest_llmmem.core.long_paths import resolved

NAME: Final = "llm-baselines.json"
"""File at the root of the run, unless ``--llm-baseline`` names another one."""

_WAIT_S: Final = 60
"""Another session holds the lock for milliseconds; a minute is for a network's file system."""


def read(path: Path) -> Baselines:
    """The baselines in a file; none when there is no such file. Raises ``BaselineError`` when it is unusable."""
    return document.parse(read_text(path), where=path) if os.path.lexists(path) else Baselines()


def check(path: Path, *, writing: bool = False) -> Baselines:
    """``read``, for use before the first test; with ``writing``, also see that it can be written."""
    baselines = read(path)
    if writing:
        with _locked(path):
            pass
    return baselines


def update(path: Path, key: str, tests: Mapping[str, Baseline], *, gone: Iterable[str] = ()) -> Baselines:
    """Write these tests of one machine into the file as it is now, and take out those that are gone.

    Returns what the file holds then. Raises ``BaselineError`` when it cannot be written.
    """
    with _locked(path) as real:
        baselines = read(real).updated(key, tests, gone=gone)
        _write(real, baselines)
    return baselines


def merge(into: Path, parts: Sequence[Path]) -> Baselines:
    """Write what these files hold into ``into``, beside what it holds already; of a test in several, the latest.

    Raises ``BaselineError`` when one of the parts is not there.
    """
    merged = Baselines()
    for part in parts:
        merged = merged.merged(document.parse(read_text(part), where=part))
    with _locked(into) as real:
        merged = read(real).merged(merged)
        _write(real, merged)
    return merged


@contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """Hold the file against other sessions; gives its real place, so that a link stays a link."""
    from filelock import FileLock, Timeout

    real = resolved(path)
    lock = real.with_name(f".{real.name}.lock")
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        if real.exists() and not os.access(real, os.W_OK):
            msg = f"{path}: it is read-only: make it writable, or name another file"
            raise BaselineError(msg)
        with tempfile.TemporaryFile(dir=real.parent):
            pass  # where no file can be made, filelock may take that for another holder and wait
        with FileLock(lock, timeout=_WAIT_S):
            yield real
    except Timeout:
        msg = f"{path}: another session has held {lock.name} for {_WAIT_S} s: end it, then run again"
        raise BaselineError(msg) from None
    except OSError as error:
        msg = f"{path}: it cannot be written ({error.strerror or error}): name another file"
        raise BaselineError(msg) from None


def _beside(path: Path) -> Path:
    """Path of the temporary file that replaces the old one. The lock ensures that only one process writes it."""
    return path.with_name(f".{path.name}.new")


def _write(path: Path, baselines: Baselines) -> None:
    text = document.render(baselines)
    with _beside(path).open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    patiently(path, lambda: _beside(path).replace(path))
