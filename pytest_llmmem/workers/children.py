"""Child processes: they end with their parent, orphans come to it, and it learns of each end."""

import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from pytest_llmmem.core.endings import Exit, exit_from_wait_status
from pytest_llmmem.probes import descendants

assert sys.platform == "linux", "the platform's switch is plugin.run.pool"

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36

_exit, _getppid, _kill, _waitpid = os._exit, os.getppid, os.kill, os.waitpid


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (``PR_SET_CHILD_SUBREAPER``, prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Ask the kernel for a signal when the parent ends; leave at once if it has ended already (``PR_SET_PDEATHSIG``)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if _getppid() != parent:
        _exit(1)


def end_descendants(spared: Iterable[int] = ()) -> dict[int, Exit]:
    """Kill and reap every process below this one, but not those and what is below them; returns how they ended.

    Killing one may hand us its children, so it is repeated until there are none.
    """
    ended: dict[int, Exit] = {}
    kept = set(spared).union(*(descendants(pid) for pid in spared))
    while left := [pid for pid in descendants(os.getpid()) if pid not in kept]:
        for pid in left:
            try:
                _kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            except PermissionError:
                kept.add(pid)  # it has become another user's
        for pid in set(left) - kept:
            # what is not our own child yet becomes so when its parent is gone
            with contextlib.suppress(ChildProcessError):
                _, status, usage = os.wait4(pid, 0)
                ended[pid] = exit_from_wait_status(status, usage.ru_maxrss * 1024)
    return ended


def leave(run: Callable[[], None]) -> None:
    """Run, and end this process without unwinding through the frames of the process that it was forked from."""
    code = 1
    try:
        run()
        code = 0
    except (EOFError, BrokenPipeError):
        pass  # the process that this one works for is gone
    except BaseException:  # noqa: BLE001 -- whatever it is, it must not reach pytest's frames in a forked process
        sys.excepthook(*sys.exc_info())
    finally:
        # sys.exit would tear the parent's fixtures down a second time, here
        _exit(code)


@dataclass(slots=True)
class ChildEvents:
    """Tells which children have ended; can be waited for, as it has a descriptor."""

    _woken: socket.socket
    _wake: socket.socket
    signals: set[int] = field(default_factory=set)
    """Those that have come, if a handler is set for them."""

    @classmethod
    def listen(cls) -> Self:
        """Set the signal handlers of this process."""
        woken, wake = socket.socketpair()
        for end in (woken, wake):
            end.setblocking(False)
        # the handlers do nothing: what wakes is the byte that Python writes for each signal
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        return cls(woken, wake)

    def fileno(self) -> int:
        return self._woken.fileno()

    def ended(self) -> Iterator[tuple[int, Exit]]:
        """Each child that has ended since the last call, and how."""
        with contextlib.suppress(BlockingIOError):
            self.signals.update(self._woken.recv(4096))
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    return
                # a forked process never exec'ed, so this is its own high-water mark, not an inherited one
                yield pid, exit_from_wait_status(status, usage.ru_maxrss * 1024)

    def close(self) -> None:
        """Restore the signal handlers in a forked child."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._woken.close()
        self._wake.close()
