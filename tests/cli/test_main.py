"""The command line as a whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_llmmem.cli import COMMANDS
from tests.cli.conftest import Llmmem


def test_help_names_every_command(llmmem: Llmmem) -> None:
    done = llmmem("--help")

    assert done.code == 0
    assert [name for name in COMMANDS if f"  {name} " not in done.out] == []


@pytest.mark.parametrize(
    "arguments", [("unknown",), ("inspect",), ("inspect", "a", "b"), ("inspect", "a", "--unknown")]
)
def test_wrong_usage_ends_with_2_and_says_nothing_on_the_standard_output(
    llmmem: Llmmem, arguments: tuple[str, ...]
) -> None:
    done = llmmem(*arguments)

    assert (done.code, done.out) == (2, "")
    assert "Usage: llmmem" in done.err


def test_the_package_can_be_run(tmp_path: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest_llmmem", "--help"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: llmmem" in done.stdout


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_names_are_printed_in_any_encoding_of_the_terminal(llmmem: Llmmem, tmp_path: Path, encoding: str) -> None:
    assert llmmem("synth", "tiny-llama", tmp_path / "größe-모델").code == 0
    command = [sys.executable, "-m", "pytest_llmmem", "inspect", str(tmp_path / "größe-모델")]

    text, document = (
        subprocess.run(
            [*command, *options], capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": encoding}
        )
        for options in ((), ("--json",))
    )

    assert (text.returncode, text.stderr) == (0, b"")
    assert text.stdout.decode(encoding).startswith("model ")
    assert json.loads(document.stdout.decode("utf-8"))["source"].endswith("größe-모델")
