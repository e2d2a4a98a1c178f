"""The parent's side of a worker: what it was told last is not lost with it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_llmmem.core.endings import Exit
from pytest_llmmem.workers.channel import Channel, channel_pair
from pytest_llmmem.workers.messages import Finished, Payload
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.worker import Worker


class EndsWhileWaitedFor(Worker):
    """Sends its last messages and ends after the parent has looked at its channel, and before it asks for its end."""

    def __init__(self, ours: Channel, theirs: Channel, files: SessionFiles, *, closes: bool) -> None:
        super().__init__(os.getpid(), ours, files)
        self._theirs, self._closes = theirs, closes

    def reap(self, timeout_s: float) -> Exit | None:
        self._theirs.send(Payload("the report"))
        self._theirs.send(Finished())
        if self._closes:
            self._theirs.close()
        return Exit(code=0)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[SessionFiles]:
    made = SessionFiles.create(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("closes", [True, False], ids=["its end is closed", "a child holds it open"])
def test_the_last_messages_of_a_worker_that_ends_meanwhile_are_read(files: SessionFiles, *, closes: bool) -> None:
    ours, theirs = channel_pair()
    worker = EndsWhileWaitedFor(ours, theirs, files, closes=closes)

    assert worker.poll(0) == Payload("the report")
    assert worker.poll(0) == Finished()
    with pytest.raises(EOFError):
        worker.poll(0)

    ours.close()
    theirs.close()
