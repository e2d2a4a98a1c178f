"""Torch's allocator of GPU memory, in the process that runs a test: its cap and its history."""

import contextlib
from collections.abc import Iterable

import pytest

from pytest_llmmem.probes import torch_memory


class Allocator:
    """Torch's allocator in the worker of the running test; its errors are the test's own errors."""

    def __init__(self) -> None:
        self._capped: list[str] = []
        self._history_file: str | None = None
        self._error: Exception | None = None

    def begin(self, caps: Iterable[tuple[str, int]], history_file: str | None) -> None:
        """Before the test's measurement begins: torch and the driver's context belong to its baseline."""
        self._error = None
        try:
            for device, room_bytes in caps:
                torch_memory.cap(device, room_bytes)
                self._capped.append(device)
            if history_file:
                torch_memory.record_history()
                self._history_file = history_file
        except Exception as error:  # noqa: BLE001 -- whatever a driver raises; the test fails with it
            self._error = error

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """The next test of a shared worker has a budget, and a history, of its own."""
        while self._capped:
            torch_memory.uncap(self._capped.pop())
        if self._history_file:
            with contextlib.suppress(
                Exception
            ):  # whatever torch or a disk raises: the parent says that it is not there
                torch_memory.write_history(self._history_file)
        self._history_file = None
