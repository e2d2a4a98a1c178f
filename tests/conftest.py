"""What the tests share: running pytest with the plugin as a user would, and reading what it reported."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from pytest_llmmem.core.records import SessionRecord, TestRecord
from tests.capabilities import missing

pytest_plugins = ["pytester"]

# how long an example takes is the machine's business
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip a test where one of these modules or capabilities is not there: ``tests/capabilities.py``."""
    lacking = missing(*names)
    return pytest.mark.skipif(bool(lacking), reason=lacking)


@dataclass(frozen=True)
class Run:
    """One finished pytest run."""

    result: pytest.RunResult
    record: SessionRecord

    @property
    def text(self) -> str:
        return self.result.stdout.str()

    def __getitem__(self, name: str) -> TestRecord:
        """The record of a test, by the end of its node id."""
        (found,) = [test for test in self.record.tests if test.nodeid.endswith(f"::{name}")]
        return found


@pytest.fixture
def uncovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of this test are not covered by the run that it belongs to.

    coverage.py waits for itself for ever where a signal interrupts its lock.
    """
    for name in ("COVERAGE_FILE", "COVERAGE_PROCESS_CONFIG", "COVERAGE_RUN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Write a test file, run it in a process of its own, and read the JSON report."""
    for name in (
        "CI",
        "BUILD_NUMBER",
        "GITHUB_ACTIONS",
        "GITHUB_STEP_SUMMARY",
    ):  # pytest and the plugin print more there
        monkeypatch.delenv(name, raising=False)
    # a file that is written anew within a second, at the same size, would be taken for what was compiled before
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")  # in which pytester reads the output

    def run_(source: str, *arguments: str, timeout_s: float = 60) -> Run:
        pytester.makepyfile(source)
        report = Path(pytester.path, "report.json")
        result = pytester.runpytest_subprocess(
            f"--llm-report={report}", "-p", "no:randomly", *arguments, timeout=timeout_s
        )
        data = (
            json.loads(report.read_text(encoding="utf-8"))
            if report.exists()
            else {"schema": 1, "environment": {}, "tests": []}
        )
        return Run(result, SessionRecord.from_json(data))

    return run_
