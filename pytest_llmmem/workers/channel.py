"""Messages between two processes, framed and checked: foreign bytes in the channel are never taken for a message.

What the functions need of the standard library is bound at import: a test may replace it, and not put it back.
"""

import os
import select
import struct
import sys
from collections.abc import Sequence
from pickle import dumps, loads
from typing import Any, Final, Protocol
from zlib import crc32

_MAGIC: Final = b"\x93LLM"
_HEADER: Final = struct.Struct("!4sIQ")
"""Magic, checksum of the payload, length of the payload."""
_LARGEST_BYTES: Final = 2**31
"""No message is larger. A test report with a huge ``repr`` has hundreds of megabytes."""
_CHUNK_BYTES: Final = 2**18
_DESCRIPTORS: Final = 8
"""Maximum number of descriptors per message."""
_HIGH: Final = 4096

__all__ = ["Channel", "ChannelError", "Endpoint", "Frames", "channel_pair", "frame", "move_high"]

_close = os.close
_SELECTABLE: Final = 1024
"""``select`` takes no descriptor above it (``FD_SETSIZE``)."""


class Endpoint(Protocol):
    """One end of a channel, as the code at that end sees it."""

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None: ...
    def receive(self) -> Any: ...


class ChannelError(Exception):
    """Bytes on the channel are no message: something else wrote to its descriptor."""


def readable(descriptors: Sequence[int], timeout_s: float | None) -> Sequence[int]:
    """Descriptors that have data or are closed, within ``timeout_s`` seconds; ``None`` waits forever."""
    if sys.platform == "win32" or max(descriptors) < _SELECTABLE:
        # poll(2) counts in milliseconds
        return select.select(descriptors, (), (), timeout_s)[0]
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)]


class Frames:
    """Takes in bytes as they come, and gives out whole payloads. Raises ``ChannelError`` for bytes that are no frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> bytes | None:
        """The next payload; ``None`` until all of it has come."""
        if not _MAGIC.startswith(bytes(self._buffer[: len(_MAGIC)])):
            raise ChannelError("it does not begin like a message")
        if len(self._buffer) < _HEADER.size:
            return None
        _, checksum, length = _HEADER.unpack_from(self._buffer)
        if length > _LARGEST_BYTES:
            raise ChannelError("it is longer than any message")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        if crc32(payload) != checksum:
            raise ChannelError("its checksum is wrong")
        return payload


def frame(payload: bytes) -> bytes:
    """A payload as it goes over the channel."""
    return _HEADER.pack(_MAGIC, crc32(payload), len(payload)) + payload


if sys.platform == "win32":
    from pytest_llmmem.workers.windows_channel import Channel, channel_pair, move_high
else:
    import array
    import fcntl
    import resource
    import socket

    class Channel:
        """One end of a stream socket; descriptors can travel with a message."""

        def __init__(self, descriptor: int) -> None:
            self._socket = own = socket.socket(fileno=descriptor)
            self._sendmsg, self._sendall, self._recvmsg = own.sendmsg, own.sendall, own.recvmsg
            self._frames = Frames()
            self._descriptors: list[int] = []

        def fileno(self) -> int:
            return self._socket.fileno()

        def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
            """Raises ``OSError`` when the other end is gone."""
            data = frame(dumps(message))
            if descriptors:
                passed = array.array("i", descriptors)
                data = data[self._sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)]) :]
            self._sendall(data)

        def receive(self) -> Any:
            """Wait for a message. Raises ``EOFError`` when the other end is gone, and ``ChannelError``."""
            while (message := self.pop()) is None:
                self._read(0)
            return message

        def pop(self) -> Any | None:
            """The next message of what was read. Raises ``ChannelError``."""
            payload = self._frames.next()
            return None if payload is None else loads(payload)  # noqa: S301 -- checked to be ours

        def poll(self) -> Any | None:
            """The next message that is there as a whole. Raises as ``fill`` does."""
            while (message := self.pop()) is None and self.fill():
                pass
            return message

        def fill(self) -> bool:
            """Read one piece and never wait; whether there was one. Raises ``EOFError`` when the other end is gone."""
            try:
                self._read(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            return True

        def take_descriptors(self, count: int) -> tuple[int, ...]:
            """The first of those that came with the messages so far; they are the caller's from now on."""
            taken = tuple(self._descriptors[:count])
            del self._descriptors[:count]
            return taken

        def close(self) -> None:
            self._socket.close()
            for descriptor in self.take_descriptors(len(self._descriptors)):
                _close(descriptor)

        def _read(self, flags: int) -> None:
            room = socket.CMSG_SPACE(_DESCRIPTORS * 4)
            try:
                data, ancillary, _, _ = self._recvmsg(_CHUNK_BYTES, room, flags | _CLOEXEC)
            except ConnectionResetError as error:
                raise EOFError(str(error)) from None
            for _, _, passed in ancillary:
                self._descriptors += array.array("i", passed[: len(passed) // 4 * 4])
            if not data:
                raise EOFError("the other end is closed")
            self._frames.feed(data)

    _CLOEXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

    def channel_pair() -> tuple[Channel, Channel]:
        """Two ends of a new channel."""
        ours, theirs = socket.socketpair()
        return Channel(ours.detach()), Channel(theirs.detach())

    def move_high(descriptor: int) -> int:
        """The same file under a number that a test which closes or writes to the usual ones does not meet."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        high = (_HIGH if soft == resource.RLIM_INFINITY else min(soft, _HIGH)) * 3 // 4
        try:
            moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, high)
        except OSError:
            return descriptor  # few are allowed here, and all of them are taken
        _close(descriptor)
        return moved
