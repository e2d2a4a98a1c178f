"""The process above all others that a session starts. It ends what they leave behind, even when the parent is killed.

It is forked from the parent before any test has run, and runs no code of others. So it can start the server of workers
again when that is killed, while the parent may have computed, opened a GPU, or started threads meanwhile.
"""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "linux", "the platform's switch is plugin.run.pool"

import contextlib
import os
import selectors
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_llmmem.core.endings import Exit
from pytest_llmmem.workers.channel import Channel, channel_pair, readable
from pytest_llmmem.workers.children import ChildEvents, adopt_orphans, end_descendants, end_with, leave

_LEAVING_S: Final = 2.0
"""Time for the server to end after its parent; it takes a millisecond where nothing is to be written."""

RunServer = Callable[[Channel, bool], None]
"""Serves the control channel; the second argument is whether it imports ahead what tests will need."""


@dataclass(frozen=True, slots=True)
class StartServer:
    """Parent to reaper: start the server of workers; the descriptor of its control channel comes with it."""

    preloads: bool


@dataclass(frozen=True, slots=True)
class ServerEnded:
    """Reaper to parent: the server is gone, and so is every process below it."""

    exit: Exit
    workers: Mapping[int, Exit]
    """Exits of the workers that outlived it, by process."""


def reap(control: Channel, run_server: RunServer, folder: Path, *, parent: int) -> None:
    """The reaper's life: until the parent is gone, or closes the channel; then the session's folder is removed."""
    os.setsid()
    adopt_orphans()
    events = ChildEvents.listen()
    signal.signal(signal.SIGTERM, lambda *_: None)
    end_with(parent, signal.SIGTERM)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(events, selectors.EVENT_READ)
    server = 0
    try:
        while signal.SIGTERM not in events.signals:
            selector.select()
            for pid, exit_ in events.ended():
                if pid == server:
                    server, workers = 0, end_descendants()
                    control.send(ServerEnded(exit_, workers))
            _resume_if_stopped(server)
            while isinstance(message := control.poll(), StartServer):
                server = _start_server(control, events, run_server, preloads=message.preloads)
    finally:
        _let_leave(server, events)
        end_descendants()
        shutil.rmtree(folder, ignore_errors=True)


def _let_leave(server: int, events: ChildEvents) -> None:
    """Give the server, whose parent is gone, time to end by itself: coverage.py writes its data then."""
    deadline = time.monotonic() + _LEAVING_S
    while server and (left_s := deadline - time.monotonic()) > 0:
        readable((events.fileno(),), left_s)
        if server in dict(events.ended()):
            break


def _start_server(control: Channel, events: ChildEvents, run_server: RunServer, *, preloads: bool) -> int:
    (descriptor,) = control.take_descriptors(1)
    reaper = os.getpid()
    pid = os.fork()
    if pid == 0:
        leave(lambda: _be_server(reaper, control, events, lambda: run_server(Channel(descriptor), preloads)))
    os.close(descriptor)
    return pid


def _be_server(reaper: int, control: Channel, events: ChildEvents, run: Callable[[], None]) -> None:
    # a group of its own, which its workers share: they lead neither group nor session, so that a test can make itself one
    os.setpgid(0, 0)
    end_with(reaper)
    control.close()
    events.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    run()


def _resume_if_stopped(server: int) -> None:
    """A server that a test has stopped would have the session wait for ever."""
    with contextlib.suppress(ChildProcessError):
        if server and os.waitid(os.P_PID, server, os.WSTOPPED | os.WNOHANG):
            os.kill(server, signal.SIGCONT)


def fork_reaper(run_server: RunServer, folder: Path) -> tuple[Channel, int]:
    """Fork the reaper from this process; returns the channel to it, and its process id. Raises ``OSError``."""
    ours, theirs = channel_pair()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # threads of other plugins (xdist's channel) do not live on in the reaper, and nothing there waits for them
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        ours.close()
        leave(lambda: reap(theirs, run_server, folder, parent=parent))
    theirs.close()
    return ours, pid
