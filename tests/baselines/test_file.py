"""The file on disk is always whole, and sessions that write at once lose nothing."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pytest_llmmem.baselines import file as store
from pytest_llmmem.baselines.document import render
from pytest_llmmem.baselines.values import Baselines
from pytest_llmmem.core.errors import BaselineError
from tests.baselines.records import baseline
from tests.conftest import needs

SESSION = """
import sys
from pathlib import Path
from pytest_llmmem.baselines import file as store
from pytest_llmmem.baselines.values import Baseline

path, name = Path(sys.argv[1]), sys.argv[2]
for number in range(10):
    one = Baseline(peak_bytes=number, peak_resident_bytes=0, peak_file_bytes=0, error_bytes=0, resident_error_bytes=0)
    store.update(path, f"machine {int(name) % 2}", {f"{name}::{number}": one})
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llm-baselines.json"


def test_no_file_is_no_baselines(path):
    assert store.check(path) == Baselines()
    assert list(path.parent.iterdir()) == []


def test_sessions_that_update_at_once_lose_nothing(path):
    sessions = [subprocess.Popen([sys.executable, "-c", SESSION, path, str(name)]) for name in range(4)]
    whole = [store.read(path)]
    while any(session.poll() is None for session in sessions):
        whole.append(store.read(path))  # raises when it is half-written

    assert [session.returncode for session in sessions] == [0] * 4
    for machine in (0, 1):
        expected = {f"{name}::{number}" for name in (machine, machine + 2) for number in range(10)}
        assert store.read(path).of(f"machine {machine}").keys() == expected
    counts = [sum(len(tests) for tests in each.machines.values()) for each in whole]
    assert counts == sorted(counts)


def test_threads_of_one_process_lose_nothing(path):
    names = [f"t{number}" for number in range(8)]
    threads = [threading.Thread(target=store.update, args=(path, "m", {name: baseline(1)})) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(store.read(path).of("m")) == names


def test_an_update_keeps_what_others_wrote_and_takes_out_what_is_gone(path):
    store.update(path, "m", {"a": baseline(1), "b": baseline(2)})
    store.update(path, "other", {"a": baseline(3)})

    held = store.update(path, "m", {"c": baseline(4)}, gone=["a"])

    assert held == store.read(path)
    assert {key: set(tests) for key, tests in held.machines.items()} == {"m": {"b", "c"}, "other": {"a"}}
    assert path.read_text() == render(held)


def test_what_a_killed_session_left_beside_is_in_nobodys_way(path):
    store.update(path, "m", {"a": baseline(1)})
    path.with_name(f".{path.name}.new").write_text('{"sche')

    assert store.check(path, writing=True).of("m").keys() == {"a"}
    assert store.update(path, "m", {"b": baseline(2)}).of("m").keys() == {"a", "b"}


def test_a_broken_file_is_not_written_over(path):
    path.write_text('{"schema": 1,')

    for use in (store.check, lambda path: store.update(path, "m", {"a": baseline(1)})):
        with pytest.raises(BaselineError, match="line 1: half-written"):
            use(path)
    assert path.read_text() == '{"schema": 1,'


@needs("links")
def test_a_link_stays_a_link(path, tmp_path):
    (tmp_path / "real").mkdir()
    path.symlink_to(tmp_path / "real" / "numbers.json")

    with pytest.raises(BaselineError, match="it cannot be read"):
        store.check(path)
    (tmp_path / "real" / "numbers.json").write_text(render(Baselines()))
    store.update(path, "m", {"a": baseline(1)})

    assert path.is_symlink()
    assert store.read(tmp_path / "real" / "numbers.json").of("m").keys() == {"a"}


def test_checking_to_write_leaves_no_file(path):
    nested = path.parent / "new" / path.name

    assert store.check(nested, writing=True) == Baselines()

    assert not nested.exists()
    assert not nested.with_name(f".{path.name}.new").exists()


def test_a_file_is_made_as_readable_as_any_other(path):
    other = path.with_name("other")
    other.touch()

    store.update(path, "m", {"a": baseline(1)})

    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (".", "it cannot be read"),
        ("a-file/llm-baselines.json", "it cannot be"),
        pytest.param(
            "/proc/llm-baselines.json",
            "it cannot be written",
            marks=needs("/proc"),
        ),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_run(tmp_path, name, complaint):
    (tmp_path / "a-file").touch()

    with pytest.raises(BaselineError, match=complaint):
        store.check(tmp_path / name, writing=True)


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="no folder is read-only to root, and none is on Windows")
def test_a_read_only_file_is_left_alone(path):
    path.write_text(render(Baselines()))
    path.chmod(0o444)

    with pytest.raises(BaselineError, match="it is read-only: make it writable"):
        store.check(path, writing=True)


def test_bytes_that_are_no_text_are_refused(path):
    path.write_bytes(b"\x80\x02}q\x00")

    with pytest.raises(BaselineError, match="it is not text"):
        store.read(path)


def test_a_byte_order_mark_does_no_harm(path):
    path.write_text(render(Baselines()), encoding="utf-8-sig")

    assert store.read(path) == Baselines()


def test_parts_of_several_runners_are_merged(path, tmp_path):
    parts = [tmp_path / f"part-{number}.json" for number in (1, 2)]
    store.update(path, "m", {"kept": baseline(1), "both": baseline(1, date="2026-10-01")})
    store.update(parts[0], "m", {"one": baseline(2), "both": baseline(2, date="2026-10-03")})
    store.update(parts[1], "cuda", {"two": baseline(3)})

    merged = store.merge(path, parts)

    assert merged == store.read(path)
    assert {key: set(tests) for key, tests in merged.machines.items()} == {
        "m": {"kept", "both", "one"},
        "cuda": {"two"},
    }
    assert merged.of("m")["both"] == baseline(2, date="2026-10-03")


def test_a_part_that_is_missing_is_an_error(path, tmp_path):
    with pytest.raises(BaselineError, match=r"nowhere.json: it cannot be read \(No such file or directory\)"):
        store.merge(path, [tmp_path / "nowhere.json"])
    assert not path.exists()
