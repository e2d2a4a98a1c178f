"""Files of a checkpoint, opened: regular ones and nothing else."""

import os
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.regular_files import RegularFile
from tests.conftest import needs

posix = needs("named pipes")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def test_a_file_is_read_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")

    with RegularFile(tmp_path / "file") as file:
        assert file.size == 10
        assert file.read(4, 3) == b"456"
        assert file.read(8, 100) == b"89"
        assert file.read(100, 1) == b""


@posix
def test_a_link_to_a_file_is_that_file_as_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"whole")
    (tmp_path / "link").symlink_to("blob")

    with RegularFile(tmp_path / "link") as file:
        assert file.read(0, 10) == b"whole"


@posix
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.mkdir(), "is a folder in the place of a file"),
        (pipe, "is a named pipe in the place of a file"),
        (lambda path: path.symlink_to("/dev/null"), "is a device in the place of a file"),
        (lambda path: path.symlink_to(path.name), "cannot be read"),
        (lambda _: None, r"cannot be read \(No such file or directory\)"),
    ],
    ids=["folder", "pipe", "device", "loop", "nothing"],
)
def test_what_is_no_file_is_told(tmp_path: Path, make: object, what: str) -> None:
    assert callable(make)
    make(tmp_path / "model.safetensors")

    with pytest.raises(CheckpointError, match=rf"model\.safetensors {what}"):
        RegularFile(tmp_path / "model.safetensors")


@posix
@pytest.mark.parametrize("make", [pipe, lambda path: path.symlink_to("/dev/null")], ids=["pipe", "device"])
def test_what_is_no_file_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    make(tmp_path / "model.safetensors")
    opened: list[object] = []
    monkeypatch.setattr(os, "open", lambda path, *_: opened.append(path))

    with pytest.raises(CheckpointError):
        RegularFile(tmp_path / "model.safetensors")

    assert opened == []


@pytest.mark.parametrize("start", [2**63, 2**64])
def test_a_place_where_no_file_reaches_is_told(tmp_path: Path, start: int) -> None:
    (tmp_path / "file").touch()

    with RegularFile(tmp_path / "file") as file, pytest.raises(CheckpointError, match="cannot be read"):
        file.read(start, 1)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no such file")
def test_a_file_that_refuses_to_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to("/proc/self/mem")

    with RegularFile(tmp_path / "file") as file, pytest.raises(CheckpointError, match=r"cannot be read \(Input/output"):
        file.read(0, 8)


@posix
def test_a_pipe_that_took_the_place_of_a_file_after_it_was_looked_at_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.touch()
    look = os.stat

    def replaced_after(which: Path) -> os.stat_result:
        found = look(which)
        path.unlink()
        os.mkfifo(path)
        return found

    monkeypatch.setattr(os, "stat", replaced_after)

    with pytest.raises(CheckpointError, match="is a named pipe in the place of a file"):
        RegularFile(path)
