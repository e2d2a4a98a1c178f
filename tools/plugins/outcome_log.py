"""A pytest plugin that writes the outcome of each report to a file at once, so that a lost session keeps its outcomes.

A line is a JSON list: the node id, pytest's category ("passed", "error", "subtests passed", ...) and the first line of the
reason. With xdist only the controller writes.
"""

import json
from pathlib import Path
from typing import TextIO

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcome-log", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        file = config.getoption("--outcome-log").open("a", encoding="ascii", buffering=1)
        config.pluginmanager.register(_Log(config, file))


class _Log:
    def __init__(self, config: pytest.Config, file: TextIO) -> None:
        self._config = config
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        category, _, _ = self._config.hook.pytest_report_teststatus(report=report, config=self._config)
        if category:
            self._write(report, category)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._write(report, "error" if report.failed else report.outcome)

    def pytest_unconfigure(self) -> None:
        self._file.close()

    def _write(self, report: pytest.TestReport | pytest.CollectReport, category: str) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = str(crash.message if crash else report.longrepr or "").strip().partition("\n")[0]
        print(json.dumps([report.nodeid, category, reason]), file=self._file)
