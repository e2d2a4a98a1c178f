"""A queue for processes that share a GPU or the host's memory and know nothing else of each other.

A folder is the waiting room. One file lists the tickets in the order of their arrival, and a lock guards it. The owner of a
ticket holds a lock of its own for as long as it waits or runs; the kernel takes that away with the process, however it
ends. A ticket whose lock can be had is nobody's, and is struck off.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pytest_llmmem.workers.owner_locks import claim

if TYPE_CHECKING:
    from filelock import FileLock

_LOOK_S: Final = 0.05
"""Time between two checks of a waiting process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """So many bytes of one thing that others want too."""

    resource: str
    size_bytes: int
    capacity_bytes: int
    """All that there is of it. A reservation of as much, or more, has it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A place in the queue, or, once admitted, inside."""

    number: int
    reservations: dict[str, int]
    """Bytes of each resource."""
    admitted: bool = False


def may_enter(number: int, reservations: Sequence[Reservation], tickets: Sequence[Ticket]) -> bool:
    """Whether the reservations fit beside those admitted, and nothing earlier waits for one of the same resources.

    Reservations of one resource are admitted in order, so a large one never waits forever; all resources are reserved
    at once, so no two tickets wait for each other.
    """
    for reservation in reservations:
        others = [
            ticket for ticket in tickets if ticket.number != number and reservation.resource in ticket.reservations
        ]
        if any(not ticket.admitted and ticket.number < number for ticket in others):
            return False
        inside = [ticket.reservations[reservation.resource] for ticket in others if ticket.admitted]
        if inside and sum(inside) + reservation.size_bytes > reservation.capacity_bytes:
            return False
    return True


@dataclass(slots=True)
class QueueTicket:
    """A ticket that this process holds."""

    _folder: Path
    _reservations: Sequence[Reservation]
    _number: int
    _lock: "FileLock"
    admitted: bool = False

    @classmethod
    def take(cls, folder: Path, reservations: Sequence[Reservation]) -> Self:
        """Queue up, and go in at once if there is room. Raises ``OSError`` where the folder cannot be used."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if sys.platform != "win32" and folder.stat().st_uid != os.getuid():
            msg = f"{folder} belongs to another user"
            raise PermissionError(msg)
        with _tickets_in(folder) as tickets:
            number = max((ticket.number for ticket in tickets), default=0) + 1
            lock = claim(_lock_of(folder, number))
            assert lock is not None, "the number is a new one"
            sizes = {reservation.resource: reservation.size_bytes for reservation in reservations}
            tickets.append(Ticket(number=number, reservations=sizes))
            taken = cls(folder, reservations, number, lock)
            taken.admitted = taken._admit(tickets)
        return taken

    def wait(self, timeout_s: float = math.inf) -> bool:
        """Wait for room, first come, first served; returns whether there was room before the timeout."""
        deadline = time.monotonic() + timeout_s
        while not self.admitted and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            with _tickets_in(self._folder) as tickets:
                self.admitted = self._admit(tickets)
        return self.admitted

    def leave(self) -> None:
        """Make room for others, or stop waiting."""
        with _tickets_in(self._folder) as tickets:
            tickets[:] = [ticket for ticket in tickets if ticket.number != self._number]
            _let_go(self._lock)

    def _admit(self, tickets: list[Ticket]) -> bool:
        tickets[:] = [ticket for ticket in tickets if ticket.number == self._number or not self._is_orphan(ticket)]
        admitted = may_enter(self._number, self._reservations, tickets)
        if admitted:
            tickets[:] = [
                Ticket(number=ticket.number, reservations=ticket.reservations, admitted=True)
                if ticket.number == self._number
                else ticket
                for ticket in tickets
            ]
        return admitted

    def _is_orphan(self, ticket: Ticket) -> bool:
        lock = claim(_lock_of(self._folder, ticket.number))
        if lock is None:
            return False
        _let_go(lock)
        return True


@contextlib.contextmanager
def _tickets_in(folder: Path) -> Iterator[list[Ticket]]:
    """The list, under the lock; it is written back as a whole or not at all."""
    from filelock import FileLock

    path = folder / "tickets.json"
    with FileLock(folder / "tickets.lock"):
        before: list[dict[str, Any]] = json.loads(path.read_bytes()) if path.exists() else []
        tickets = [Ticket(**ticket) for ticket in before]
        yield tickets
        after = [asdict(ticket) for ticket in tickets]
        if after != before:
            new = path.with_suffix(".new")
            new.write_text(json.dumps(after), encoding="utf-8")
            os.replace(new, path)


def _lock_of(folder: Path, number: int) -> Path:
    return folder / f"ticket-{number}.lock"


def _let_go(lock: "FileLock") -> None:
    lock.release()
    with contextlib.suppress(OSError):  # Windows cannot remove a file that another process has open
        os.unlink(lock.lock_file)
