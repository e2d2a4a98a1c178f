"""Run the test suites of other projects, each in an environment of its own, and read the outcome of every test."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PLAIN: Final = ("-p", "no:llmmem")
ISOLATED: Final = ("--llm-isolate=all",)
THE_RUN: Final = "(the run)"
"""In place of a node id."""

_PLUGINS: Final = ROOT / "tools/plugins"
_SUMMARY: Final = re.compile(r"^=*\s*(\d+ .+) in [\d.]+s", re.MULTILINE)
_INTERNAL_ERROR: Final = re.compile(r"^(?:\[gw\d+\].*|INTERNALERROR> )(\w\S*(?:Error|Exception).*)", re.MULTILINE)
# -c names the suite's own file: else a suite that configures nothing would find this project's, above the cache folder.
_COMMON: Final = (
    *("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-o", "addopts=", "-c", "pyproject.toml"),
    *("-p", "outcome_log"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A package and its tests: a release whose sdist has them, or a folder with a checkout."""

    name: str
    version: str
    part: str = ""
    """Which of the package's tests, where they run in several parts."""
    requires: tuple[str, ...] = ()
    """What the tests need beside pytest and the package, pinned."""
    arguments: tuple[str, ...] = ()
    """What pytest is told for this suite only."""
    tests: tuple[str, ...] = ("tests",)
    """Folders and files, below the package's own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that are set for every run."""
    checkout: Path | None = None
    """A folder that is installed, and that pytest runs in; ``None`` for the sdist of the version."""
    limit_s: int = 900
    """A run that takes longer is stopped."""

    @property
    def stem(self) -> str:
        """Name of the sdist, and of the folder in it."""
        return f"{self.name.replace('-', '_')}-{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The outcomes of one pytest session, complete or not."""

    outcomes: Mapping[str, Counter[str]]
    """By node id: how many of its reports pytest puts into each category."""
    reasons: Mapping[str, str]
    """By node id: the first line of the first reason."""
    ending: str
    """The exit status, or that the run was stopped."""
    summary: str
    """Pytest's last line without the time: the only place that counts warnings."""
    seconds: float

    def __str__(self) -> str:
        """Count the outcomes, the most frequent first."""
        return _counted(sum(self.outcomes.values(), Counter())) or self.ending


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A folder with one suite's sources, and a virtual environment to run them in."""

    suite: Suite
    folder: Path

    @property
    def python(self) -> Path:
        """Interpreter of the virtual environment."""
        return self.folder / "venv/bin/python"

    @property
    def source(self) -> Path:
        """The folder that pytest runs in."""
        return self.suite.checkout or self.folder / self.suite.stem

    def prepare(self, *, base_python: str, pytest_version: str, sdists: Path, beside: tuple[str, ...]) -> None:
        """Download, unpack and install; the sdist and the environment of an earlier call are used again.

        ``beside`` are the plugins that are installed with every suite.
        """
        pip = (self.python, "-m", "pip", "--quiet", "--disable-pip-version-check")
        if not self.python.exists():
            _call(base_python, "-m", "venv", self.folder / "venv")
        package = ("-e", self.suite.checkout) if self.suite.checkout else (f"{self.suite.name}=={self.suite.version}",)
        if self.suite.checkout is None:
            archive = sdists / f"{self.suite.stem}.tar.gz"
            if not archive.exists():
                _call(*pip, "download", "--no-deps", "--no-binary", self.suite.name, "--dest", sdists, *package)
            shutil.rmtree(self.source, ignore_errors=True)
            # No filter=, which Python 3.11.3 lacks: pip has run this archive's build backend, so it is trusted by now.
            shutil.unpack_archive(archive, self.folder)
        # One command, so that pip honours every pin or refuses.
        pins = (f"pytest=={pytest_version}", *self.suite.requires, *beside)
        _call(*pip, "install", *package, *pins, "-e", ROOT)

    def run(self, label: str, arguments: tuple[str, ...], *, test: str | None = None) -> Run:
        """Run the suite once, or one test by its node id; outcomes and output stay in the folder under ``label``."""
        label = f"{self.suite.part}-{label}" if self.suite.part else label
        log, output = self.folder / f"{label}.jsonl", self.folder / f"{label}.log"
        log.unlink(missing_ok=True)
        options = (*_COMMON, f"--outcome-log={log}", *self.suite.arguments, *arguments)
        command = (str(self.python), "-m", "pytest", *options, *((test,) if test else self.suite.tests))
        began = time.perf_counter()
        ending = self._call_pytest(command, output)
        seconds = time.perf_counter() - began
        text = output.read_text(encoding="utf-8", errors="replace")
        outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        reasons: dict[str, str] = {}
        if errors := _INTERNAL_ERROR.findall(text):
            reasons[THE_RUN] = errors[-1]
        for line in log.read_text(encoding="ascii").splitlines() if log.exists() else ():
            test, category, reason = json.loads(line)
            outcomes[test][category] += 1
            if reason:
                reasons.setdefault(test, reason)
        return Run(
            outcomes=outcomes,
            reasons=reasons,
            ending=ending,
            summary=(_SUMMARY.findall(text) or ["none"])[-1],
            seconds=seconds,
        )

    def _call_pytest(self, command: tuple[str, ...], output: Path) -> str:
        """Run a command in a process group of its own, and return how it ended."""
        # The caller's PYTEST_ADDOPTS or PYTHONPATH is not the suite's; a fixed hash seed keeps test ids made from sets.
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
        environ |= {"PYTHONHASHSEED": "0", "PYTHONPATH": str(_PLUGINS), "HF_HUB_OFFLINE": "1"}
        environ |= self.suite.environment
        with output.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, cwd=self.source, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                return f"exit status {process.wait(self.suite.limit_s)}"
            except subprocess.TimeoutExpired:
                return f"stopped after {self.suite.limit_s} s"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def differences(plain: Run, isolated: Run) -> dict[str, str]:
    """A sentence for each test whose outcomes differ, by its node id; tests that did not run isolated come last."""
    before, after = ({THE_RUN: Counter([run.ending]), **run.outcomes} for run in (plain, isolated))
    found = {}
    for test in sorted(before | after, key=lambda test: test not in after):
        was, became = (_counted(outcomes.get(test, Counter())) or "absent" for outcomes in (before, after))
        if was != became:
            reason = isolated.reasons.get(test) or plain.reasons.get(test) or "no reason given"
            found[test] = f"{test}: plain {was}; isolated {became}: {reason}"
    return found


def _counted(outcomes: Counter[str]) -> str:
    by_frequency = sorted(outcomes.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {category}" for category, count in by_frequency)


def _call(*command: str | Path) -> None:
    """Run a command that must succeed; stdout is left to the table."""
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        sys.exit(f"exit status {done.returncode} from {shlex.join(map(str, command))}")
