"""Shared by the benchmarks: pytest on generated tests in a process of its own, medians, and a table."""

import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")
MB = 1_000_000
PROJECT = Path(__file__).resolve().parents[1]

_CLOCK = """
import time

ticks = []


def pytest_runtest_logfinish():
    ticks.append(time.perf_counter())


def pytest_unconfigure(config):
    config.rootpath.joinpath("ticks").write_text("\\n".join(map(str, ticks)))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The result of one pytest session."""

    code: int
    """Negative, the number of a signal, when it was ended."""
    output: str
    wall_s: float
    tests: Mapping[str, Mapping[str, Any]]
    """Of the JSON report, by the test's name."""
    per_test_s: Sequence[float]
    """Between the ends of consecutive tests."""


class Session:
    """A folder with one generated test file, on which pytest can be run again and again."""

    def __init__(self, folder: Path, tests: str, *, plugins: Literal["named", "installed"] = "named") -> None:
        self.folder = folder
        self._plugins = plugins
        folder.joinpath("tmp").mkdir()
        self.write("test_bench.py", tests)
        self.write("clock.py", _CLOCK)
        self.write("pytest.ini", "[pytest]\n")

    def write(self, name: str, text: str) -> None:
        self.folder.joinpath(name).write_text(textwrap.dedent(text))

    def command(self, *arguments: str, python: str = sys.executable) -> list[str]:
        """The command that runs pytest on the tests."""
        plugins = ("-p", "clock", "-p", "no:cacheprovider", "-p", "no:randomly")
        return [python, "-m", "pytest", "-q", *plugins, *arguments, "test_bench.py"]

    def environment(self) -> dict[str, str]:
        own = {
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1" if self._plugins == "named" else "",
            # the plugin of this checkout, not the installed one
            "PYTHONPATH": os.pathsep.join((str(self.folder), str(PROJECT))),
            "TMPDIR": str(self.folder / "tmp"),
            "HF_HUB_OFFLINE": "1",
        }
        return {name: text for name, text in os.environ.items() if name != "PYTEST_ADDOPTS"} | own

    def run(self, *arguments: str, python: str = sys.executable, limit_s: float | None = None) -> Run:
        """Run once, for at most ``limit_s``. The caller passes ``-p llmmem``, because some runs are without it."""
        report, ticks, output = (self.folder / name for name in ("report.json", "ticks", "output"))
        for old in (report, ticks):
            old.unlink(missing_ok=True)
        isolating = "llmmem" in arguments
        command = self.command(*arguments, *(["--llm-report=report.json"] if isolating else []), python=python)
        began = time.perf_counter()
        # a file, because a process that is left behind would keep a pipe open
        with output.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment(), stdout=file, stderr=subprocess.STDOUT
            )
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        wall_s = time.perf_counter() - began
        tests = json.loads(report.read_text())["tests"] if report.exists() else []
        times = [float(line) for line in ticks.read_text().split()] if ticks.exists() else []
        return Run(
            code=code,
            output=output.read_text(errors="replace"),
            wall_s=wall_s,
            tests={test["nodeid"].partition("::")[2]: test for test in tests},
            per_test_s=[later - earlier for earlier, later in zip(times, times[1:], strict=False)],
        )


@contextmanager
def session(tests: str, *, plugins: Literal["named", "installed"] = "named") -> Iterator[Session]:
    """A session on a temporary test file, with the plugins that a run names or with all."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Session(Path(folder), tests, plugins=plugins)


def interleave(variants: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run each variant once per round, in any order, so that other work on the machine affects all of them equally."""
    results: dict[str, list[T]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name in random.sample(list(variants), len(variants)):
            results[name].append(variants[name]())
    return results


@dataclass(frozen=True, slots=True)
class Middle:
    """A median and its 95 % confidence interval."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Whatever their distribution: the values whose ranks are 0.98 times the root of their number away from the middle.

        How many of ``n`` values lie below the true median is binomial, with a deviation of half the root of ``n``. Of
        fewer than six values, which cannot say so much, it is all of them.
        """
        ordered = sorted(values)
        lowest = max(0, math.floor(len(ordered) / 2 - 0.98 * math.sqrt(len(ordered))))
        return cls(statistics.median(ordered), ordered[lowest], ordered[-1 - lowest])

    def at_most(self, goal: float) -> str:
        """Whether a goal is met, undecided if the interval contains it."""
        return verdict(self.high <= goal) if self.high <= goal or self.low > goal else "undecided"

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def table(*rows: Sequence[object]) -> None:
    """Print rows with aligned columns; the first row is the header, the first column is text."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        first, *others = (f"{cell:{'<' if not i else '>'}{width}}" for i, (cell, width) in enumerate(zip(row, widths)))
        print("  ".join([first, *others]).rstrip())


@contextmanager
def busy_core() -> Iterator[None]:
    """One core has no time to spare."""
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


def verdict(met: bool) -> str:
    return "yes" if met else "NO"
