"""What killed sessions left is removed by a later one; what living ones use is not."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pytest_llmmem.workers.session_folders import SessionFolder

OWNER = """
import sys
from pytest_llmmem.workers.session_folders import SessionFolder
folder = SessionFolder.create()
folder.path.joinpath("weights").write_bytes(bytes(4096))
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def tempdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("TEMP", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_the_folder_of_a_killed_session_is_removed_and_that_of_a_living_one_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdin=-1, stdout=-1, text=True) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        _age(folder)
        SessionFolder.create().remove()
        assert folder.joinpath("weights").exists()
        owner.kill()

    _age(folder)
    SessionFolder.create().remove()

    assert not folder.exists()


def test_a_folder_that_was_just_made_is_left_to_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "llmmem-session-young"
    folder.mkdir()

    SessionFolder.create().remove()

    assert folder.exists()


def test_its_own_folder_is_removed_with_what_is_in_it(tmp_path: Path) -> None:
    folder = SessionFolder.create()
    folder.path.joinpath("scratch").mkdir()

    folder.remove()

    assert not list(tmp_path.iterdir())


def _age(folder: Path) -> None:
    an_hour_ago = time.time() - 3600
    os.utime(folder, (an_hour_ago, an_hour_ago))
