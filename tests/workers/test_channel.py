"""Messages come as they were sent, and nothing else passes for one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.workers.channel import Channel, ChannelError, Frames, channel_pair, frame, move_high
from tests.conftest import needs

posix = needs("Unix sockets")
PAYLOADS = st.lists(st.binary(max_size=300), max_size=6)


@given(payloads=PAYLOADS, data=st.data())
def test_payloads_come_whole_however_their_bytes_are_cut(payloads: list[bytes], data: st.DataObject) -> None:
    stream, frames, found = b"".join(map(frame, payloads)), Frames(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        frames.feed(stream[:size])
        stream = stream[size:]
        while (payload := frames.next()) is not None:
            found.append(payload)

    assert found == payloads


@given(before=PAYLOADS, garbage=st.binary(min_size=1), after=st.binary(max_size=50))
def test_garbage_between_messages_is_never_a_message(before: list[bytes], garbage: bytes, after: bytes) -> None:
    frames = Frames()
    frames.feed(b"".join(map(frame, before)))
    assert [frames.next() for _ in before] == before

    frames.feed(garbage + frame(after))

    try:
        assert frames.next() is None  # it waits for the rest of what could still be a message
    except ChannelError:
        return
    assert frame(b"").startswith(garbage[:4])


def test_a_huge_length_is_refused_before_anything_of_it_has_come() -> None:
    frames = Frames()
    frames.feed(frame(b"")[:8] + (1 << 40).to_bytes(8, "big"))

    with pytest.raises(ChannelError, match="longer than any message"):
        frames.next()


def test_a_changed_payload_is_refused() -> None:
    frames = Frames()
    frames.feed(frame(b"weights").replace(b"weights", b"weightz"))

    with pytest.raises(ChannelError, match="checksum"):
        frames.next()


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = channel_pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@posix
def test_a_large_message_is_read_in_pieces_that_never_block(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    large = "x" * 5_000_000
    pid = os.fork()
    if pid == 0:
        theirs.send(large)
        theirs.send("the next one")
        os._exit(0)

    theirs.close()
    assert ours.receive() == large
    assert ours.receive() == "the next one"
    with pytest.raises(EOFError):
        ours.receive()
    os.waitpid(pid, 0)


@posix
def test_descriptors_travel_with_their_message(ends: tuple[Channel, Channel], tmp_path: Path) -> None:
    ours, theirs = ends
    with (tmp_path / "output").open("w+") as file:
        theirs.send("two", (file.fileno(), file.fileno()))

    assert ours.poll() == "two"
    first, second = ours.take_descriptors(2)

    os.write(first, b"written through the other process")
    assert (tmp_path / "output").read_text() == "written through the other process"
    assert not os.get_inheritable(second)
    os.close(first)
    os.close(second)


@posix
def test_nothing_to_read_is_no_message_and_a_closed_end_is_the_end(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends

    assert ours.poll() is None
    theirs.close()
    with pytest.raises(EOFError):
        ours.poll()


@posix
def test_a_descriptor_moves_out_of_the_way_and_is_not_inherited(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)

    high = move_high(descriptor)

    assert high > 64
    assert not os.get_inheritable(high)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    os.close(high)
