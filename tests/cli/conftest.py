"""Running a command as its user would, in this process."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.cli import main


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """What it printed, which must be one JSON document and nothing else."""
        document: dict[str, Any] = json.loads(self.out)
        return document


Llmmem = Callable[..., Done]


@pytest.fixture
def llmmem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Llmmem:
    """Run ``llmmem`` in an empty folder, with a cache of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["llmmem", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        captured = capsys.readouterr()
        return Done(ended.value.code, captured.out, captured.err)

    return run
