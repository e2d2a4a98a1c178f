"""``llmmem inspect`` and ``estimate`` of checkpoints that mean harm: an answer in a sentence, and nothing else happens."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Llmmem
from tests.conftest import needs
from tests.models.hostile import Hostile
from tests.models.hostile_kinds import HEAVY, LIGHT

kinds = pytest.mark.parametrize("kind", [kind for kind in LIGHT if kind.can_be_made], ids=lambda kind: kind.name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """It is filled by each test."""
    (tmp_path / "checkpoint").mkdir()
    return tmp_path / "checkpoint"


def is_printable(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@kinds
def test_inspect_answers_in_a_sentence(llmmem: Llmmem, folder: Path, kind: Hostile) -> None:
    kind.make(folder)

    done = llmmem("inspect", folder)

    assert done.code == (0 if kind.accepted else 1)
    assert re.search(kind.says, done.err or done.out)
    assert done.err.count("\n") <= 1
    assert "Traceback" not in done.err
    assert is_printable(done.out + done.err)
    assert not Path("pwned").exists()


@kinds
@pytest.mark.parametrize("command", ["inspect", "estimate"])
def test_json_is_one_document_or_a_sentence(llmmem: Llmmem, folder: Path, kind: Hostile, command: str) -> None:
    kind.make(folder)

    done = llmmem(command, folder, "--json")

    assert done.code in {0, 1}
    assert is_printable(done.out + done.err)
    if done.err:
        assert (done.out, done.err.count("\n")) == ("", 1)
    else:
        assert done.document["source"] == str(folder)


_PROGRAM = """
import atexit, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))  # no work without an end
sys.argv[1:] = ["inspect", sys.argv[1]]
from pytest_llmmem.cli import main
try:
    main()
finally:
    print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], file=sys.stderr)
"""


@needs("/proc")
@pytest.mark.parametrize("kind", HEAVY, ids=lambda kind: kind.name)
def test_what_is_large_is_answered_within_300_megabytes(folder: Path, kind: Hostile) -> None:
    kind.make(folder)

    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, folder], capture_output=True, text=True, check=False, timeout=120
    )

    *said, peak_kb = done.stderr.splitlines()
    assert done.returncode == (0 if kind.accepted else 1)
    assert len(said) == (0 if kind.accepted else 1)
    assert re.search(kind.says, " ".join(said))
    assert int(peak_kb) < 300_000
