"""The last place that a worker noted can be read, whatever became of the worker."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pytest_llmmem.core.load_position import LoadPosition
from pytest_llmmem.workers.load_progress import LoadProgress
from tests.conftest import needs

PLACE = "place"
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=600)
reused = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LoadProgress]:
    """The parent's side."""
    file = LoadProgress.create(tmp_path / PLACE)
    yield file
    file.close()


def noted(place: LoadProgress) -> tuple[str, str] | None:
    found = place.read()
    return found and (found.shard, found.tensor)


def test_nothing_is_being_read_before_the_first_note_and_after_an_empty_one(place: LoadProgress) -> None:
    assert place.read() is None

    place.write("1.safetensors", "a.weight")
    place.write("", "")

    assert place.read() is None


@reused
@given(shard=NAMES.filter(bool), tensor=NAMES)
@example(shard="a" + "\N{LATIN SMALL LETTER E WITH ACUTE}" * 300, tensor="")
def test_names_come_back_as_they_were_or_their_first_hundred_characters(
    place: LoadProgress, shard: str, tensor: str
) -> None:
    place.write(shard, tensor)

    for name, back in zip((shard, tensor), noted(place) or (), strict=True):
        assert back in {name, name[:100]}
        assert back == name or len((shard + tensor).encode()) > 900


@pytest.mark.skipif(sys.getfilesystemencodeerrors() != "surrogateescape", reason="every name of a file is text")
def test_a_file_name_that_is_no_text_can_be_noted(place: LoadProgress) -> None:
    place.write(os.fsdecode(b"model-\xff.bin"), "")

    assert noted(place) == ("model-?.bin", "")


def test_the_serial_tells_a_new_note_from_an_old_one(place: LoadProgress) -> None:
    place.write("1.safetensors", "a.weight")
    first, again = place.read(), place.read()
    place.write("1.safetensors", "a.weight")
    second = place.read()

    assert first == again == LoadPosition("1.safetensors", "a.weight", 1)
    assert second == LoadPosition("1.safetensors", "a.weight", 2)


def test_of_a_note_that_was_cut_short_nothing_is_told_and_the_one_before_stands(
    place: LoadProgress, tmp_path: Path
) -> None:
    place.write("1.safetensors", "a.weight")
    place.write("2.safetensors", "b.weight")
    path = tmp_path / PLACE
    with path.open("r+b") as file:  # Windows cuts no file that is mapped
        cut = file.read().replace(b"b.weight", b"b.wei\0\0\0")
        file.seek(0)
        file.write(cut)

    assert noted(place) == ("1.safetensors", "a.weight")


def test_what_was_cleared_is_gone_and_a_new_worker_may_count_from_one_again(
    place: LoadProgress, tmp_path: Path
) -> None:
    for _ in range(3):
        place.write("1.safetensors", "a.weight")
    assert noted(place) is not None

    place.clear()
    assert place.read() is None

    new = LoadProgress.open(tmp_path / PLACE)
    new.write("2.safetensors", "b.weight")
    new.close()
    assert place.read() == LoadPosition("2.safetensors", "b.weight", 1)


@needs("fork")
def test_a_forked_worker_that_is_killed_leaves_its_last_place(place: LoadProgress) -> None:
    pid = os.fork()
    if pid == 0:
        place.write("1.safetensors", "a.weight")
        place.write("2.safetensors", "b.weight")
        os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(pid, 0)

    assert os.WTERMSIG(status) == signal.SIGKILL
    assert noted(place) == ("2.safetensors", "b.weight")


SPAWNED = """
import sys
from threading import Thread

from pytest_llmmem.workers.load_progress import LoadProgress

place = LoadProgress.open(int(sys.argv[1]))


def write(name):
    while True:
        for length in range(50):
            place.write(name, name * length)


threads = [Thread(target=write, args=(name,), daemon=True) for name in sys.argv[2:]]
for thread in threads:
    thread.start()
if not threads:
    place.write("2.safetensors", "b.weight")
print("noted", flush=True)
sys.stdin.read()
"""


@contextmanager
def spawned(place: LoadProgress, *names: str) -> Iterator[None]:
    """A worker that notes one place, or one thread for each name that notes it again and again; killed in the end."""
    command = [sys.executable, "-c", SPAWNED, str(place.descriptor), *names]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, pass_fds=[place.descriptor], **pipes) as worker:  # type: ignore[call-overload]
        assert worker.stdout is not None
        assert worker.stdout.readline().split() == [b"noted"]
        yield
        worker.kill()


@needs("inherited descriptors")
def test_a_spawned_worker_that_is_killed_leaves_its_last_place(place: LoadProgress) -> None:
    with spawned(place):
        pass

    assert noted(place) == ("2.safetensors", "b.weight")


@needs("inherited descriptors")
def test_what_is_read_while_threads_write_was_written_by_one_of_them(place: LoadProgress) -> None:
    seen: set[LoadPosition] = set()
    with spawned(place, "x", "y", "z"):
        while len(seen) < 500 or {each.shard for each in seen} != {"x", "y", "z"}:
            seen.update(filter(None, [place.read()]))

    assert all(set(each.tensor) <= {each.shard} for each in seen)
    assert place.read() is not None
