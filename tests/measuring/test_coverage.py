"""Coverage sees the lines of a measured function, in whatever process it ran."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import needs

coverage = pytest.importorskip("coverage")

SCRIPT = """
import sys
from pytest_llmmem import measure

def work(megabytes):
    block = b"x" * megabytes * 1_000_000
    return len(block)

if __name__ == "__main__":
    assert measure(work, 1, worker=sys.argv[1]).value == 1_000_000
"""


@pytest.mark.parametrize("worker", ["spawn", pytest.param("fork", marks=needs("forked workers"))])
@pytest.mark.usefixtures("uncovered")
def test_the_lines_of_a_measured_function_count(tmp_path: Path, worker: str) -> None:
    script, data = tmp_path / "script.py", tmp_path / "data"
    script.write_text(SCRIPT)
    (tmp_path / ".coveragerc").write_text(
        f"[run]\nparallel = true\npatch = _exit, subprocess\nsource = {tmp_path}\ndata_file = {data}\n"
    )

    subprocess.run([sys.executable, "-m", "coverage", "run", script, worker], cwd=tmp_path, check=True, timeout=100)

    found = coverage.CoverageData(no_disk=True)  # else it writes into the folder, and into the data, of this very run
    for part in tmp_path.glob("data.*"):
        read = coverage.CoverageData(str(part))
        read.read()
        found.update(read)
    assert {6, 7} <= set(found.lines(str(script)))
