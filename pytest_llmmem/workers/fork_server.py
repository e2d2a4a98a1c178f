"""The process that workers are forked from: preloaded, single-threaded, and never computing anything itself.

A process that has run an OpenMP region or has touched a GPU cannot be forked from, so it comes from the parent as that was
right after collection, before any test has run there.
"""

import sys

# above the other imports: type checkers of other platforms stop here
assert sys.platform == "linux", "the platform's switch is plugin.run.pool"

import ctypes
import gc
import os
from collections.abc import Callable
from functools import partial
from typing import Final

from pytest_llmmem.probes import gpu_files_open, private_maps
from pytest_llmmem.workers.channel import Channel, move_high
from pytest_llmmem.workers.children import ChildEvents, end_with, leave
from pytest_llmmem.workers.server import Preloaded, serve

_MADV_COLLAPSE: Final = 25
_HUGE: Final = 2 << 20
_COLLAPSE_FROM: Final = 150
"""Jobs from which collapsing pays: 250 ms once, 1.8 ms off each fork (with torch and transformers loaded)."""

Body = Callable[[Channel], None]


def serve_forks(control: Channel, body: Body, preload: Callable[[], None], *, jobs: int) -> None:
    """The fork server's life: preload, then fork when asked. ``jobs`` are to be expected."""
    events = ChildEvents.listen()
    preload()
    control.send(Preloaded(os.getpid(), gpu_files_open()))
    # without it the first collection in a worker would copy every inherited page that holds an object
    gc.freeze()
    if jobs >= _COLLAPSE_FROM:
        collapse_heap()
    serve(control, events, partial(_fork_worker, control, events, body), marks="own")


def _fork_worker(control: Channel, events: ChildEvents, body: Body, descriptor: int) -> int:
    server = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            leave(partial(_be_worker, server, control, events, body, descriptor))
    finally:
        os.close(descriptor)
    return pid


def _be_worker(server: int, control: Channel, events: ChildEvents, body: Body, descriptor: int) -> None:
    end_with(server)
    control.close()
    events.close()
    body(Channel(move_high(descriptor)))


def collapse_heap() -> None:
    """Gather our anonymous memory into huge pages: a fork then copies a third of the page tables.

    ``MADV_COLLAPSE`` exists since Linux 6.1; where it is refused nothing is lost.
    """
    madvise = ctypes.CDLL(None).madvise
    for start, end in private_maps():
        for address in range(-(-start // _HUGE) * _HUGE, end - _HUGE + 1, _HUGE):
            madvise(ctypes.c_void_p(address), ctypes.c_size_t(_HUGE), _MADV_COLLAPSE)
