"""The connection by which the running code is measured: a worker's to its parent, or one within this process."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_llmmem import probes
from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.readings import NOTHING
from pytest_llmmem.core.terms import Terms
from pytest_llmmem.measuring.limits import terms_of_machine
from pytest_llmmem.supervision.accounting import Accounting
from pytest_llmmem.workers.child import ParentConnection
from pytest_llmmem.workers.messages import Boundary, Payload


@dataclass(slots=True)
class Account:
    """The other end of a connection's channel, in the same process."""

    accounting: Accounting
    received: Callable[[Any], None]
    _answers: "deque[Any]" = field(default_factory=deque)

    @classmethod
    def open(
        cls, budgets: tuple[Budget, ...], terms: Terms, received: Callable[[Any], None]
    ) -> "tuple[Account, ParentConnection]":
        """An account, and the connection that it answers."""
        account = cls(Accounting(budgets, terms, is_sampled=False), received)
        connection = ParentConnection(account, probes.mappings())
        connection.ready()
        return account, connection

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        match message:
            case Boundary():
                self._answers += self.accounting.cross(message, NOTHING)
            case Payload(what):
                self.received(what)

    def receive(self) -> Any:
        return self._answers.popleft()


@dataclass(slots=True)
class _Connections:
    """Connections of this process."""

    current: tuple[int, ParentConnection] | None = None
    """The connection of the running test or measured function, and its process: a child process has no connection."""
    own: tuple[int, ParentConnection] | None = None
    """The connection for code that is not measured from outside, and the process that made it."""


_connections = _Connections()


@contextlib.contextmanager
def using(connection: ParentConnection) -> Generator[None]:
    """Measure what runs meanwhile through this connection."""
    before, _connections.current = _connections.current, (os.getpid(), connection)
    try:
        yield
    finally:
        _connections.current = before


def current() -> ParentConnection | None:
    """The connection of the test, or of the measured function, that runs now; ``None`` outside of both."""
    if _connections.current is None or _connections.current[0] != os.getpid():
        return None
    return _connections.current[1]


def current_or_own() -> ParentConnection:
    """The same, or else one within this process, as for a fixture of the session or a script."""
    if (connection := current()) is not None:
        return connection
    if _connections.own is None or _connections.own[0] != os.getpid():
        _, connection = Account.open((), terms_of_machine(), lambda _: None)
        _connections.own = os.getpid(), connection
    return _connections.own[1]
