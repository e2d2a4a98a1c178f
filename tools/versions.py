"""Run the plugin's own tests on the oldest supported pytest and the newest supported Python.

Each pair gets an environment under ``--cache``. torch is not needed: tests of models skip themselves without it. A
missing interpreter is skipped, and that is said.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from interpreters import find

PAIRS = (("3.11", "8.2.0"), ("3.13", "9.2.0"))
BESIDE = (
    "hypothesis",
    "psutil",
    "pytest-cov",
    "pytest-randomly",
    "pytest-rerunfailures",
    "pytest-timeout",
    "pytest-xdist",
)
PROJECT = Path(__file__).parents[1]


def environment(python: str, pytest: str, cache: Path) -> Path | None:
    """Return the interpreter of an environment with that pair, which is made if needed; ``None`` without that Python."""
    interpreter = find(python)
    if interpreter is None:
        return None
    folder = cache / f"python{python}-pytest{pytest}"
    inside = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([interpreter, "-m", "venv", "--clear", folder], check=True)
        wanted = [f"pytest=={pytest}", *BESIDE, "-e", str(PROJECT)]
        subprocess.run([inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted], check=True)
        (folder / "ready").touch()
    return inside


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=PROJECT / ".cache" / "versions")
    cache = parser.parse_args().cache
    failed = 0
    for python, pytest in PAIRS:
        print(f"== Python {python}, pytest {pytest}", flush=True)
        inside = environment(python, pytest, cache)
        if inside is None:
            print(f"passed over: there is no python{python} here")
            continue
        run = [inside, "-m", "pytest", "-q", "-n", "2", "tests/core", "tests/plugin", "-p", "no:cacheprovider"]
        failed |= subprocess.run(run, cwd=PROJECT, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
