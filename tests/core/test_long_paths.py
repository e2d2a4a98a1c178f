"""Paths beyond what Windows opens without a prefix. What opens them is tested in tests/windows/test_commands.py."""

import os
import sys
from pathlib import Path

import pytest

from pytest_llmmem.core.long_paths import extended, reachable, resolved
from tests.conftest import needs

NAME = "n" * 250


@pytest.mark.parametrize(
    ("absolute", "expected"),
    [
        ("C:\\models\\a", "C:\\models\\a"),
        ("\\\\server\\share\\a", "\\\\server\\share\\a"),
        (f"C:\\models\\{NAME}", f"\\\\?\\C:\\models\\{NAME}"),
        (f"C:/models/./{NAME}/b/../a", f"\\\\?\\C:\\models\\{NAME}\\a"),
        (f"\\\\server\\share\\{NAME}", f"\\\\?\\UNC\\server\\share\\{NAME}"),
    ],
)
def test_only_a_long_path_gets_the_prefix(absolute: str, expected: str) -> None:
    assert extended(absolute) == expected


def test_a_path_has_the_prefix_once() -> None:
    once = extended(f"C:\\{NAME}")

    assert extended(once) == once


def test_a_short_path_is_returned_as_it_was_given() -> None:
    assert reachable(Path("folder")) == Path("folder")


def test_windows_gets_the_prefix_for_what_is_long_and_no_other_system(monkeypatch: pytest.MonkeyPatch) -> None:
    long = Path("C:\\models") / NAME
    monkeypatch.setattr(os.path, "abspath", str)

    monkeypatch.setattr(sys, "platform", "win32")
    assert (str(reachable(long)), reachable(Path("folder"))) == (extended(str(long)), Path("folder"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert reachable(long) is long


def test_links_stay_where_the_system_cannot_resolve_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Path:
        raise OSError(path)

    monkeypatch.setattr(Path, "resolve", refuse)

    assert resolved(Path("folder")) == reachable(Path.cwd() / "folder")


@needs("links")
def test_a_resolved_path_has_no_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)

    assert resolved(tmp_path / "link" / "file") == resolved(tmp_path) / "file"


def test_a_long_path_is_resolved_to_the_file_that_it_names(tmp_path: Path) -> None:
    folder = reachable(tmp_path.joinpath(*["d" * 100] * 3))
    folder.mkdir(parents=True)
    (folder / "file").write_text("here", encoding="utf-8")

    assert (resolved(folder) / "file").read_text(encoding="utf-8") == "here"
