"""What the kernel says of memory is what psutil says of it."""

import os
import subprocess
import sys
import time

import psutil

from pytest_llmmem import probes
from pytest_llmmem.probes.driver import _readable
from pytest_llmmem.probes.timer import fine_timer
from pytest_llmmem.probes.windows import marks_of_ended
from pytest_llmmem.probes.windows_api import close_handle, open_process

MB = 10**6


def test_a_reading_of_ourselves_is_psutils() -> None:
    reading = probes.open_memory(os.getpid()).read()
    memory = psutil.Process().memory_info()

    assert reading is not None
    assert abs(reading.resident_bytes - memory.rss) < MB
    assert abs(reading.unreclaimable_bytes - memory.pagefile) < MB


def test_a_child_is_read_until_it_ends() -> None:
    program = "x = b'x' * 50_000_000; print('ready', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    memory = probes.open_memory(child.pid)

    reading = memory.read()
    child.communicate(b"\n")

    assert reading is not None
    assert reading.unreclaimable_bytes > 50 * MB
    assert memory.read() is None
    memory.close()


def test_a_process_that_is_not_there_has_no_reading() -> None:
    assert probes.open_memory(4_000_000_000).read() is None


def test_the_working_sets_mark_remembers_a_spike() -> None:
    memory = probes.open_memory(os.getpid())
    spike = b"x" * (60 * MB)
    del spike
    reading = memory.read()

    assert reading is not None
    assert reading.lifetime is not None
    assert reading.lifetime.resident_bytes is not None
    assert reading.lifetime.resident_bytes > reading.resident_bytes + 50 * MB
    memory.close()


def test_marks_of_an_ended_process_can_be_asked_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"])
    handle = open_process(0x1000 | 0x10, 0, child.pid)
    child.wait()

    marks = marks_of_ended(handle)

    assert marks is not None  # Wine tells none of them
    close_handle(handle)


def test_the_machine_is_psutils() -> None:
    machine = probes.host_memory()

    assert machine.total_bytes <= psutil.virtual_memory().total
    assert 0 < machine.available_bytes <= machine.machine_available_bytes


def test_children_are_found() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert child.pid in probes.descendants(os.getpid())
        assert probes.shared_once((os.getpid(), child.pid)).resident_bytes > 10 * MB
    finally:
        child.kill()
        child.wait()


def test_a_pipe_is_waited_for_no_longer_than_asked() -> None:
    program = "input(); print('said', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None

    assert not _readable(child.stdout.fileno(), 0.01)
    child.stdin.write(b"\n")
    child.stdin.flush()
    assert _readable(child.stdout.fileno(), 30)
    assert child.stdout.readline().strip() == b"said"

    child.kill()
    child.wait()
    assert _readable(child.stdout.fileno(), 30)  # its end
    child.stdout.close()
    child.stdin.close()


def test_a_fine_timer_is_given_back() -> None:
    with fine_timer():
        before = time.perf_counter()
        time.sleep(0.001)

    assert time.perf_counter() - before >= 0.001
