"""The tests of ``soak.py``: every kind of crash, and one test that survives. Run them only in workers."""

import contextlib
import ctypes
import faulthandler
import mmap
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import pytest

SESSION = os.getpid()
"""The process that has collected: no test may end it, whatever its own parent is."""


def test_lives(tmp_path):
    """Check that the test before left no traces."""
    kept = (os._exit, os.getpid, os.read, time.monotonic, faulthandler.dump_traceback)
    assert {type(function).__name__ for function in kept} == {"builtin_function_or_method"}
    assert os.getpid() != SESSION
    assert threading.active_count() == 1
    tmp_path.joinpath("file").write_text("x")
    with socket.socket() as connection:
        connection.bind(("127.0.0.1", 0))


# Signals, exits, limits


def test_sigsegv():
    ctypes.string_at(0)


def test_sigbus(tmp_path):
    path = tmp_path / "truncated"
    path.write_bytes(bytes(2 * mmap.PAGESIZE))
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
        file.truncate(0)
        memory[mmap.PAGESIZE]


def test_sigabrt():
    os.abort()


def test_sigkill():
    os.kill(os.getpid(), signal.SIGKILL)


def test_exit_0():
    os._exit(0)


def test_exit_3():
    os._exit(3)


@pytest.mark.max_ram("20MB", on_breach="stop")
def test_over_budget():
    held = []
    while True:
        held.append(bytes(100_000))


@pytest.mark.in_worker(timeout=0.3)
def test_timeout():
    time.sleep(60)


@pytest.mark.in_worker(timeout=0.3)
def test_stops_itself():
    os.kill(os.getpid(), signal.SIGSTOP)


def test_sys_exit():
    sys.exit(1)


def test_memory_error():
    raise MemoryError


@pytest.fixture
def dies_in_setup():
    os.abort()


@pytest.fixture
def dies_in_teardown():
    yield
    os.abort()


def test_setup(dies_in_setup):
    pass


def test_teardown(dies_in_teardown):
    pass


# Processes


def start_sleeper():
    subprocess.Popen(["sleep", "1234567"], start_new_session=True)


def fork_server() -> int:
    parent = os.getppid()
    assert os.getpid() != SESSION != parent, "this worker was not forked from a fork server"
    return parent


def test_orphan():
    start_sleeper()


def test_forks_into_pytest():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, since Python 3.12
        pid = os.fork()
    if pid:
        os.waitpid(pid, 0)


def test_kills_fork_server():
    start_sleeper()
    os.kill(fork_server(), signal.SIGKILL)
    time.sleep(5)


@pytest.mark.in_worker(timeout=2)
def test_stops_fork_server():
    os.kill(fork_server(), signal.SIGSTOP)


# Descriptors


def write_to_sockets(data: bytes):
    for descriptor in range(3, 4096):
        # closed, or a full buffer
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, data)


@pytest.mark.in_worker(timeout=2)
def test_garbage():
    write_to_sockets(b"garbage garbage garbage")


@pytest.mark.in_worker(timeout=1)
def test_garbage_and_hangs():
    write_to_sockets(b"garbage garbage garbage")
    time.sleep(60)


@pytest.mark.in_worker(timeout=2)
def test_bad_message():
    write_to_sockets(struct.pack("!i", 5) + b"hello")


@pytest.mark.in_worker(timeout=2)
def test_huge_length():
    write_to_sockets(struct.pack("!iQ", -1, 1 << 40))


@pytest.mark.in_worker(timeout=2)
def test_closes_descriptors():
    os.closerange(3, 4096)


# What the worker's own life needs, replaced and not put back


def test_replaces_exit():
    os._exit = lambda _: None


def test_replaces_getpid():
    os.getpid = lambda: 4242


def test_replaces_read():
    os.read = lambda *_: b""


def test_replaces_clock():
    time.monotonic = lambda: 0.0


def test_replaces_socket():
    socket.socket = None


def test_replaces_faulthandler():
    faulthandler.enable = faulthandler.register = faulthandler.dump_traceback = None


def test_empties_tmpdir():
    for path in Path(tempfile.gettempdir()).iterdir():
        if path.name.startswith("pytest-of-"):
            continue  # plain pytest, too, expects it to stay
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


# Reports


class SilentError(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class OwnWarning(UserWarning):
    pass


def test_bad_str():
    raise SilentError


def test_bad_repr():
    assert SilentError() == 1


def test_surrogate():
    raise ValueError("\udc80")


def test_large_text():
    raise ValueError("x" * 100_000_000)


def test_unpicklable_property(record_property):
    record_property("lock", threading.Lock())


def test_own_warning():
    warnings.warn("of a class of its own", OwnWarning, stacklevel=1)
