"""Messages between two processes on Windows, over a named pipe, which keeps messages apart by itself."""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "win32", "the platform's switch is workers/channel.py"

import _winapi
import msvcrt
import os
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Pipe, PipeConnection
from pickle import dumps, loads
from typing import Any, Final

_LARGEST_BYTES: Final = 2**31 - 1
_A_WHILE_S: Final = 60.0
_DUPLICATE: Final = 0x40
"""``PROCESS_DUP_HANDLE``."""


class Channel:
    """One end of a named pipe. Handles of files can be sent to the process that made the pipe."""

    def __init__(self, handle: int | PipeConnection, parent: int | None = None) -> None:
        """``parent`` is the process at the other end; ``None`` when nothing but messages is sent."""
        self._pipe = PipeConnection(handle) if isinstance(handle, int) else handle
        self._parent = parent
        self._messages: deque[Any] = deque()
        self._handles: list[int] = []

    def fileno(self) -> int:
        return self._pipe.fileno()

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Raises ``OSError`` when the other end is gone."""
        handles = _duplicated(descriptors, self._parent) if descriptors else ()
        self._pipe.send_bytes(dumps((message, handles)))

    def receive(self) -> Any:
        """Wait for a message. Raises ``EOFError`` when the other end is gone."""
        while (message := self.pop()) is None:
            self.fill(_A_WHILE_S)
        return message

    def pop(self) -> Any | None:
        """The next message of what was read."""
        return self._messages.popleft() if self._messages else None

    def fill(self, timeout_s: float = 0.0) -> bool:
        """Read a message, if one comes in time; whether one did. Raises ``EOFError`` when the other end is gone."""
        try:
            if not self._pipe.poll(timeout_s):
                return False
            message, handles = loads(self._pipe.recv_bytes(_LARGEST_BYTES))  # noqa: S301 -- the pipe has no name that others know
        except OSError as error:
            # PeekNamedPipe fails when the other end is gone, and that is an end, not an error
            raise EOFError(str(error)) from None
        self._messages.append(message)
        self._handles += handles
        return True

    def take_descriptors(self, count: int) -> tuple[int, ...]:
        """Descriptors of the first handles that came with the messages so far; they are the caller's from now on."""
        taken, self._handles = self._handles[:count], self._handles[count:]
        return tuple(msvcrt.open_osfhandle(handle, os.O_RDWR | os.O_BINARY) for handle in taken)

    def close(self) -> None:
        self._pipe.close()
        for handle in self._handles:
            _winapi.CloseHandle(handle)


def _duplicated(descriptors: Sequence[int], process: int | None) -> tuple[int, ...]:
    """Handles of the same files, valid in another process."""
    assert process is not None, "only a worker sends files, and it knows its parent"
    # the sender duplicates: a receiver that did it could come too late, after the sender's death
    other = _winapi.OpenProcess(_DUPLICATE, False, process)
    try:
        return tuple(
            _winapi.DuplicateHandle(
                _winapi.GetCurrentProcess(),
                msvcrt.get_osfhandle(descriptor),
                other,
                0,
                False,
                _winapi.DUPLICATE_SAME_ACCESS,
            )
            for descriptor in descriptors
        )
    finally:
        _winapi.CloseHandle(other)


def channel_pair() -> tuple[Channel, Channel]:
    """Two ends of a new channel."""
    ours, theirs = Pipe()
    return Channel(ours), Channel(theirs)


def move_high(descriptor: int) -> int:
    """A descriptor has no usual number that a test could meet."""
    return descriptor
