"""What only Windows can show, and Wine as far as it does: ``make wine``."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from pytest_llmmem.core.records import SessionRecord, TestRecord

if sys.platform != "win32":
    collect_ignore_glob = ["test_*.py"]


@dataclass(frozen=True)
class Session:
    """One finished pytest run."""

    code: int
    text: str
    record: SessionRecord

    def __getitem__(self, name: str) -> TestRecord:
        """The record of a test, by the end of its node id."""
        (found,) = [test for test in self.record.tests if test.nodeid.endswith(f"::{name}")]
        return found


def run_session(folder: Path, source: str, *arguments: str) -> Session:
    """Run a test file as a user would. A worker takes seconds under Wine, so a module's tests share one run."""
    (folder / "test_them.py").write_text(dedent(source), encoding="utf-8")
    report = folder / "report.json"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rA",
        "-p",
        "no:cacheprovider",
        "-p",
        "llmmem",
        f"--llm-report={report}",
        *arguments,
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # hypothesis alone takes seconds in each worker
        capture_output=True,
        encoding="cp1252",
        errors="replace",
        timeout=240,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    record = SessionRecord.from_json(json.loads(report.read_text(encoding="utf-8")))
    return Session(done.returncode, done.stdout + done.stderr, record)
