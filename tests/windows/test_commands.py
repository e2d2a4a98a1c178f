"""The commands, and the files that they write."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.checkpoints.sparse_files import create_sparse, disk_bytes, end_with_hole
from pytest_llmmem.workers.session_folders import SessionFolder


def llmmem(*arguments: str, folder: Path, encoding: str = "utf-8") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-X", "utf8", "-m", "pytest_llmmem", *arguments],
        cwd=folder,
        capture_output=True,
        encoding=encoding,
        timeout=230,
        check=False,
    )


def test_a_synthetic_checkpoint_is_written_at_once(tmp_path: Path) -> None:
    before = time.monotonic()

    done = llmmem("synth", "polyglot-ko-1.3b", "made", "--json", folder=tmp_path)

    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["parameters"], made["shards"]) == (1_331_810_304, 3)
    assert read_checkpoint(tmp_path / "made").weights_bytes == made["weights_bytes"]
    # 2.6 GB of zeros would take longer than Python's start, even here
    assert time.monotonic() - before < 60


@pytest.mark.parametrize("format_", ["safetensors", "bin"])
def test_a_synthetic_checkpoint_reads_back(tmp_path: Path, format_: str) -> None:
    done = llmmem("synth", "tiny-llama", "made", "--format", format_, folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert llmmem("inspect", "made", folder=tmp_path).returncode == 0


def test_a_file_with_a_hole_is_as_long_as_asked_and_reads_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with create_sparse(path) as file:
        file.write(b"head")
        end_with_hole(file, 10_000_000)

    assert path.stat().st_size == 10_000_000
    assert path.read_bytes() == b"head" + bytes(9_999_996)
    assert disk_bytes(path) <= 10_000_000


def test_commands_write_and_read_a_path_beyond_260_characters(tmp_path: Path) -> None:
    path = os.path.join("d" * 100, "e" * 100, "f" * 100, "made")

    done = [
        llmmem(command, *arguments, folder=tmp_path)
        for command, *arguments in (("synth", "tiny-llama", path), ("inspect", path), ("estimate", path))
    ]

    assert [each.returncode for each in done] == [0, 0, 0], "".join(each.stderr for each in done)
    assert "213,568" in done[1].stdout


def test_a_folder_that_is_not_there_beyond_260_characters_is_named_in_one_sentence(tmp_path: Path) -> None:
    done = llmmem("inspect", os.path.join("d" * 100, "e" * 100, "f" * 100), folder=tmp_path)

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "there is no folder" in " ".join(done.stderr.split())


def test_a_command_prints_a_name_that_the_code_page_does_not_have(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest_llmmem", "synth", "tiny-llama", "größe-모델"],
        cwd=tmp_path,
        capture_output=True,
        encoding="cp1252",
        timeout=230,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert r"größe-\ubaa8\ub378" in done.stdout


def test_inspect_tells_of_a_checkpoint(tmp_path: Path) -> None:
    llmmem("synth", "tiny-llama", "made", folder=tmp_path)

    done = llmmem("inspect", "made", "--json", folder=tmp_path)

    assert json.loads(done.stdout)["parameters"] > 0


def test_a_command_says_what_is_wrong_in_one_sentence(tmp_path: Path) -> None:
    done = llmmem("inspect", "nothing", folder=tmp_path)

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "nothing" in done.stderr


def test_check_judges_what_needs_no_transformers(tmp_path: Path) -> None:
    needing_transformers = "load resident forward second_load second_copy release disk dtype max_memory quantization"
    skips = [f"--skip={check}" for check in needing_transformers.split()]

    done = llmmem("check", "synthetic:tiny-llama", "--json", *skips, folder=tmp_path)

    assert "Traceback" not in done.stderr
    outcomes = {check["id"]: check["outcome"] for check in json.loads(done.stdout)["checks"]}
    assert (outcomes["duplicates"], outcomes["integrity"]) == ("passed", "passed")


@pytest.mark.skipif(not ctypes.WinDLL("kernel32").GetConsoleCP(), reason="needs a console, which passes Ctrl-Break on")
def test_an_interrupted_session_ends_its_workers(tmp_path: Path) -> None:
    (tmp_path / "test_long.py").write_text(
        "import os, pathlib, time, pytest\n"
        "@pytest.mark.in_worker\n"
        "def test_long():\n"
        "    pathlib.Path('pid').write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n"
    )
    session = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
    )
    try:
        pid = tmp_path / "pid"
        deadline = time.monotonic() + 60
        while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)

        session.send_signal(signal.CTRL_BREAK_EVENT)
        output, _ = session.communicate(timeout=60)
    finally:
        session.kill()
        session.wait()

    assert not psutil.pid_exists(int(pid.read_text()))
    assert b"KeyboardInterrupt" in output


def test_an_abandoned_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    abandoned = tmp_path / "llmmem-session-left"
    abandoned.mkdir()
    (abandoned / "owner.lock").touch()
    (abandoned / "scratch").mkdir()
    old = time.time() - 3600
    os.utime(abandoned, (old, old))

    folder = SessionFolder.create()

    assert not abandoned.exists()
    folder.remove()
    assert not folder.path.exists()
