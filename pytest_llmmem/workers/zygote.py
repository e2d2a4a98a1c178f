"""The process that workers are forked from: preloaded, single-threaded, and never computing anything itself.

It is forked from the parent right after collection, before any test has run there: a process that has run an OpenMP
region or has touched a GPU cannot be forked from. It reaps its workers and, as child subreaper, whatever they leave.
"""

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Final

from pytest_llmmem.core.outcomes import Exit, exit_from_wait_status
from pytest_llmmem.probes import descendants, gpu_files_open, private_maps

assert sys.platform == "linux", "the platform's switch is plugin.pool"

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_MADV_COLLAPSE: Final = 25
_HUGE: Final = 2 << 20
_COLLAPSE_FROM: Final = 60
"""Jobs from which half a second of collapsing pays (``docs/benchmarks.md``)."""

Body = Callable[[Connection], None]


@dataclass(frozen=True, slots=True)
class Fork:
    """Parent to zygote: make a worker; the handle of its channel follows."""


@dataclass(frozen=True, slots=True)
class LetGo:
    """Parent to zygote: this worker has left nothing behind, and others may run when it ends."""

    pid: int


@dataclass(frozen=True, slots=True)
class Preloaded:
    """Zygote to parent: it is ready to fork, unless it has opened a GPU, whose context survives no fork."""

    gpu_file: str | None


def leave(run: Callable[[], None]) -> None:
    """Run, and end this process without unwinding through the frames of the process that it was forked from."""
    code = 1
    try:
        run()
        code = 0
    except BaseException:  # noqa: BLE001 -- whatever it is, it must not reach pytest's frames in a forked process
        sys.excepthook(*sys.exc_info())
    finally:
        # sys.exit would tear the parent's fixtures down a second time, here
        os._exit(code)


def serve(control: Connection, body: Body, preload: Callable[[], None], *, parent: int, jobs: int) -> None:
    """The zygote's life: preload, then fork when asked, and tell how each worker ended. ``jobs`` are to be expected."""
    _die_with(parent)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    preload()
    control.send(Preloaded(gpu_files_open()))
    gc.collect()
    # without it the first collection in a worker would copy every inherited page that holds an object
    gc.freeze()
    if jobs >= _COLLAPSE_FROM:
        collapse_heap()
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    workers: set[int] = set()
    let_go: set[int] = set()
    while True:
        for key, _ in selector.select():
            if key.fileobj is wake:
                with contextlib.suppress(BlockingIOError):
                    wake.recv(4096)
                for ended in _collect(workers, let_go):
                    control.send(ended)
                continue
            try:
                message = control.recv()
            except EOFError:
                return
            if isinstance(message, LetGo):
                let_go.add(message.pid)
            else:
                pid = _fork_worker(control, body)
                workers.add(pid)
                control.send(pid)


def _fork_worker(control: Connection, body: Body) -> int:
    channel = Connection(recv_handle(control))
    pid = os.fork()
    if pid == 0:
        leave(partial(_be_worker, control, channel, body))
    channel.close()
    return pid


def _be_worker(control: Connection, channel: Connection, body: Body) -> None:
    zygote = os.getppid()
    os.setsid()
    _die_with(zygote)
    control.close()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    body(channel)


def _collect(workers: set[int], let_go: set[int]) -> list[tuple[int, Exit]]:
    """Reap what has ended; kill and reap what the ended workers left behind."""
    ended: list[tuple[int, Exit]] = []
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        if pid in workers:
            workers.discard(pid)
            # a forked process never exec'ed, so this is its own mark and not an inherited one
            ended.append((pid, exit_from_wait_status(status, usage.ru_maxrss * 1024)))
            if pid not in let_go:
                _kill_orphans(workers)
            let_go.discard(pid)
    return ended


def _kill_orphans(workers: set[int]) -> None:
    """End every descendant that is not a worker or below one: killing one may hand us its children, so repeat."""
    spared = workers.union(*(descendants(pid) for pid in workers))
    while orphans := [pid for pid in descendants(os.getpid()) if pid not in spared]:
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends; leave at once if it has ended already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def collapse_heap() -> None:
    """Gather our anonymous memory into huge pages: a fork then copies a third of the page tables.

    ``MADV_COLLAPSE`` exists since Linux 6.1; where it is refused nothing is lost.
    """
    madvise = ctypes.CDLL(None).madvise
    for start, end in private_maps():
        for address in range(-(-start // _HUGE) * _HUGE, end - _HUGE + 1, _HUGE):
            madvise(ctypes.c_void_p(address), ctypes.c_size_t(_HUGE), _MADV_COLLAPSE)
