"""Setup, call and teardown as stretches of the measurement, within the stretch of the test."""

from collections.abc import Generator

import pytest

from pytest_llmmem.workers.child import ParentConnection
from pytest_llmmem.workers.messages import Opening


class Phases:
    """A plugin that opens and closes them for the test that runs, if it is measured."""

    def __init__(self) -> None:
        self._connection: ParentConnection | None = None
        self._open = 0

    def begin(self, connection: ParentConnection) -> None:
        """Measure the next test."""
        self._connection, self._open = connection, 0

    def end(self) -> None:
        """End what is open: the last phase, and the test."""
        if self._connection is not None and self._open:
            self._connection.switch(closes=self._open)
        self._connection, self._open = None, 0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        __tracebackhide__ = True
        self._open_phase("setup")
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        __tracebackhide__ = True
        self._open_phase("call")
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        __tracebackhide__ = True
        self._open_phase("teardown")
        return (yield)

    def _open_phase(self, name: str) -> None:
        """Set one boundary between two phases, so that the high-water mark is reset once."""
        if self._connection is None:
            return
        if self._open:
            self._connection.switch(closes=self._open - 1, opens=(Opening(name),))
        else:
            self._connection.switch(opens=(Opening("test"), Opening(name)))
        self._open = 2
