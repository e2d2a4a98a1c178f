"""The code that runs in the worker of ``measure``: it calls the function and sends back its result or exception."""

import io
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pytest_llmmem.measuring.connection import using
from pytest_llmmem.models.loading.residency import trim
from pytest_llmmem.supervision.accounting import WHOLE
from pytest_llmmem.workers.child import ParentConnection
from pytest_llmmem.workers.messages import Opening

_LARGEST_BYTES: Final = 256 * 2**20
"""A value that is larger stays in the worker: sending it takes several times its size, in both processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The function has returned."""

    type: str
    pickled: bytes
    why_lost: str
    """Why the value cannot be sent; empty when ``pickled`` is it."""
    kept_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """The function has raised."""

    pickled: bytes
    """The exception; empty when it cannot be sent."""
    text: str
    """``"ValueError: bad shape"``."""
    traceback: str
    """Traceback as Python prints it."""


@dataclass(frozen=True, slots=True)
class NotImported:
    """The function is not there in a fresh interpreter."""

    why: str


@dataclass(frozen=True, slots=True)
class Calls:
    """The function with its arguments, and how often it is called before the call that is measured."""

    function: Callable[[], Any]
    warmup: int


def run_calls(calls: Calls, connection: ParentConnection) -> None:
    """Run the function between two boundaries, and send its outcome.

    With warm-up calls the job has the phases of a test: the plan says that its setup counts for nothing.
    """
    trim()
    connection.open(WHOLE)
    windows = 2 if calls.warmup else 1
    outcome: Returned | Raised
    try:
        with using(connection):
            _warm_up(calls, connection)
            value = calls.function()
    except BaseException as error:  # noqa: BLE001 -- the caller gets whatever it is
        connection.switch(closes=windows)
        outcome = _raised(error)
    else:
        # what is still held then is kept; the value counts
        trim()
        kept_bytes = connection.close().kept_bytes
        connection.switch(closes=windows - 1)
        pickled, why_lost = _pickled(value)
        outcome = Returned(type=type(value).__qualname__, pickled=pickled, why_lost=why_lost, kept_bytes=kept_bytes)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    connection.send(outcome)


def _warm_up(calls: Calls, connection: ParentConnection) -> None:
    if not calls.warmup:
        return
    connection.open("setup")
    for _ in range(calls.warmup):
        calls.function()
    trim()
    connection.switch(closes=1, opens=(Opening("call"),))


def write_output_to(descriptor: int) -> None:
    """Let this process, and what it starts, write to a file from now on, whatever had replaced its streams."""
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.FileIO(number, "w", closefd=False), encoding="utf-8", line_buffering=True, errors="backslashreplace"
        )
        for number in (1, 2)
    )


def _raised(error: BaseException) -> Raised:
    ours = error.__traceback__
    error.__traceback__ = ours.tb_next if ours else None
    pickled, why_lost = _pickled(error)
    try:
        pickle.loads(pickled)  # noqa: S301 -- our own: many exceptions can be pickled and not be built again
    except Exception:  # noqa: BLE001 -- whatever a constructor raises
        why_lost = "it cannot be built again"
    return Raised(
        pickled=b"" if why_lost else pickled,
        text="".join(traceback.format_exception_only(error)).strip(),
        traceback="".join(traceback.format_exception(error)),
    )


def _pickled(value: Any) -> tuple[bytes, str]:
    """The value as bytes, or none and why not."""
    file = _Bounded()
    try:
        _Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception as error:  # noqa: BLE001 -- whatever a ``__reduce__`` raises
        return b"", f"{type(error).__name__}: {error}"
    return file.getvalue(), ""


class _Pickler(pickle.Pickler):
    """Knows the exceptions of ``pytest.skip`` and its like, which say that they are built in."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type) and (pytest := sys.modules.get("pytest")):
            for name in ("skip", "fail", "xfail", "exit"):
                if value is getattr(pytest, name).Exception:
                    return _exception_of_pytest, (name,)
        return NotImplemented


def _exception_of_pytest(name: str) -> Any:
    return getattr(sys.modules["pytest"], name).Exception


class _Bounded(io.BytesIO):
    """A file that refuses to grow beyond what may be sent."""

    def write(self, data: Any, /) -> int:
        if self.tell() + memoryview(data).nbytes > _LARGEST_BYTES:
            msg = f"it is larger than {_LARGEST_BYTES // 2**20} MiB"
            raise ValueError(msg)
        return super().write(data)
