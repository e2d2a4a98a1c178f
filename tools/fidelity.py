"""Run the test suites of well-known packages plain and isolated, and compare the outcome of every test.

Isolation that changes what a test says is a defect, and our own tests only cover what we thought of. So three suites
that others wrote are run twice, once without the plugin and once with every test in a worker of its own:

    python tools/fidelity.py --python 3.13 --pytest 8.2.0 --extra "-n 2"

The exit status is 1 if any outcome differs. Seconds are the wall time of one run each: a hint, not a benchmark.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from interpreters import find

ROOT = Path(__file__).resolve().parent.parent
PLAIN = ("-p", "no:llmmem")
ISOLATED = ("--llm-isolate=all",)
SUMMARY = re.compile(r"^=*\s*(\d+ .+) in [\d.]+s", re.MULTILINE)
LIMIT_S = 900
SHOWN = 10

# -c names the suite's own file: else a suite that configures nothing would find this project's, above the cache folder.
COMMON = ("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-o", "addopts=", "-c", "pyproject.toml")
# Installed beside every suite so that `--extra "-n 2"` works; idle otherwise.
TOOLS = ("pytest-xdist==3.8.0",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A released package whose sdist holds its tests."""

    name: str
    version: str
    requires: tuple[str, ...] = ()
    """What the tests need beside pytest and the package, pinned."""
    arguments: tuple[str, ...] = ()
    """What pytest is told for this suite only."""

    @property
    def stem(self) -> str:
        """Name of the sdist, and of the folder in it."""
        return f"{self.name.replace('-', '_')}-{self.version}"


SUITES = (
    # capsys, capfd, monkeypatch, tmp_path, processes, threads; every warning is an error. Its own addopts, which COMMON
    # empties, leave the 31000 stress tests out.
    Suite(name="click", version="8.5.1", arguments=("-m", "not stress")),
    # Session and module fixtures, xfail, hypothesis. The seed makes both runs try the same examples.
    Suite(
        name="attrs",
        version="26.1.0",
        requires=("cloudpickle==3.1.2", "hypothesis==6.170.15", "pympler==1.1"),
        arguments=("--hypothesis-seed=0",),
    ),
    # unittest.TestCase throughout, 11000 subtests, threads. test_primes alone takes as long as all the others.
    Suite(name="more-itertools", version="11.2.1", arguments=("-k", "not test_primes")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one pytest run said."""

    outcomes: dict[str, list[str]]
    """Sorted outcomes by `classname::name`, which may occur more than once. Empty if pytest wrote no report."""
    ending: str
    """The exit status, or that the run was stopped."""
    summary: str
    """Pytest's last line without the time: the only place that counts subtests and warnings."""
    seconds: float

    def __str__(self) -> str:
        """Count the outcomes, the most frequent first."""
        counts = Counter(outcome for outcomes in self.outcomes.values() for outcome in outcomes)
        return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()) or self.ending


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A folder with one suite's sources, and a virtual environment to run them in."""

    suite: Suite
    folder: Path

    @property
    def python(self) -> Path:
        """Interpreter of the virtual environment."""
        return self.folder / "venv/bin/python"

    def prepare(self, *, base_python: str, pytest_version: str, sdists: Path) -> None:
        """Download, unpack and install; the sdist and the environment of an earlier call are used again."""
        pin, archive = f"{self.suite.name}=={self.suite.version}", sdists / f"{self.suite.stem}.tar.gz"
        pip = (self.python, "-m", "pip", "--quiet", "--disable-pip-version-check")
        if not self.python.exists():
            call(base_python, "-m", "venv", self.folder / "venv")
        if not archive.exists():
            call(*pip, "download", "--no-deps", "--no-binary", self.suite.name, "--dest", sdists, pin)
        shutil.rmtree(self.folder / self.suite.stem, ignore_errors=True)
        # No filter=, which Python 3.11.3 lacks: pip has run this archive's build backend, so it is trusted by now.
        shutil.unpack_archive(archive, self.folder)
        # One command, so that pip honours every pin or refuses.
        call(*pip, "install", f"pytest=={pytest_version}", pin, *self.suite.requires, *TOOLS, "-e", ROOT)

    def run(self, label: str, arguments: tuple[str, ...]) -> Run:
        """Run the suite once; report and log stay in the folder under `label`."""
        report, said = self.folder / f"{label}.xml", self.folder / f"{label}.log"
        report.unlink(missing_ok=True)
        options = (*COMMON, *self.suite.arguments, *arguments, f"--junitxml={report}")
        command, source = (str(self.python), "-m", "pytest", *options, "tests"), self.folder / self.suite.stem
        # The caller's PYTEST_ADDOPTS or PYTHONPATH is not the suite's; a fixed hash seed keeps test ids made from sets.
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
        environ["PYTHONHASHSEED"] = "0"
        start = time.perf_counter()
        with said.open("w", encoding="utf-8") as log:
            try:
                status = subprocess.run(
                    command, cwd=source, env=environ, stdout=log, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False
                ).returncode
                ending = f"exit status {status}"
            except subprocess.TimeoutExpired:
                ending = f"stopped after {LIMIT_S} s"
        seconds = time.perf_counter() - start
        lines = SUMMARY.findall(said.read_text(encoding="utf-8", errors="replace"))
        return Run(outcomes=read_outcomes(report), ending=ending, summary=(lines or ["none"])[-1], seconds=seconds)


def call(*command: str | Path) -> None:
    """Run a command that must succeed; stdout is left to the table."""
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        sys.exit(f"fidelity: exit status {done.returncode} from {shlex.join(map(str, command))}")


def read_outcomes(report: Path) -> dict[str, list[str]]:
    """Read a JUnit XML report, where a passed test has no word and a failed one may have a second, for its teardown."""
    words = {"failure": "failed", "error": "error", "skipped": "skipped"}
    outcomes: dict[str, list[str]] = {}
    for case in ET.parse(report).iter("testcase") if report.exists() else ():
        said = [(child.get("type"), words[child.tag]) for child in case if child.tag in words] or [(None, "passed")]
        test = outcomes.setdefault(f"{case.get('classname')}::{case.get('name')}", [])
        test.extend("xfailed" if kind == "pytest.xfail" else word for kind, word in said)
    return {test: sorted(found) for test, found in outcomes.items()}


def differences(plain: Run, isolated: Run) -> list[str]:
    """Return a line for each test whose outcomes differ, after one for the run itself if it ended differently."""
    before, after = ({"(the run)": [run.ending]} | run.outcomes for run in (plain, isolated))
    return [
        f"{test}: plain {', '.join(before.get(test, ['absent']))}; isolated {', '.join(after.get(test, ['absent']))}"
        for test in before | after
        if before.get(test) != after.get(test)
    ]


def main() -> int:
    """Compare the chosen suites, print a Markdown table, then what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="a version like 3.13, or a path")
    parser.add_argument("--pytest", default="9.2.0", metavar="VERSION", help="pytest to install (default: %(default)s)")
    parser.add_argument("--extra", default="", metavar="ARGS", help='more arguments for the isolated run, like "-n 2"')
    parser.add_argument("--only", choices=[suite.name for suite in SUITES], help="run this suite alone")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache/fidelity", help="folder for all that is kept")
    chosen = parser.parse_args()
    if (chosen_python := find(chosen.python)) is None:
        print(f"passed over: there is no Python {chosen.python} here")
        return 0
    cache, ask = chosen.cache.resolve(), "import platform; print(platform.python_version())"
    version = subprocess.check_output([chosen_python, "-c", ask], text=True).strip()
    print("package | version | tests | plain | isolated | differing | plain s | isolated s | ratio")
    print(" | ".join(["---"] * 9))
    notes, differing = [], 0
    for suite in (suite for suite in SUITES if chosen.only in {None, suite.name}):
        bench = Bench(suite=suite, folder=cache / f"{suite.stem}-python{version}-pytest{chosen.pytest}")
        bench.prepare(base_python=chosen_python, pytest_version=chosen.pytest, sdists=cache / "sdists")
        # Else the plain run alone would pay for rewriting the assertions of modules that are not yet compiled.
        bench.run("collection", (*PLAIN, "--collect-only"))
        plain = bench.run("plain", PLAIN)
        if not plain.outcomes:
            sys.exit(f"fidelity: {suite.name} runs no test even without the plugin: see {bench.folder / 'plain.log'}")
        isolated = bench.run("isolated", (*ISOLATED, *shlex.split(chosen.extra)))
        found = differences(plain, isolated)
        tests, ratio = sum(map(len, plain.outcomes.values())), isolated.seconds / plain.seconds
        print(f"{suite.name} | {suite.version} | {tests} | {plain} | {isolated} | {len(found)}", end=" | ")
        print(f"{plain.seconds:.1f} | {isolated.seconds:.1f} | {ratio:.2f}", flush=True)
        totals = f"(pytest's summary): plain {plain.summary}; isolated {isolated.summary}; logs in {bench.folder}"
        notes += [f"{suite.name}: {line}" for line in (*found[:SHOWN], totals)]
        differing += len(found)
    print("", *notes, sep="\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
