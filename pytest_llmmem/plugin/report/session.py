"""Collects the records of all tests, from xdist's workers too, and hands them to the renderers at the end."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.plugin.options import is_any_given
from pytest_llmmem.plugin.state import settings_of

if TYPE_CHECKING:
    from pytest_llmmem.core.records import SessionRecord


class Reporting:
    """Lives in the process that talks to the user: pytest's own, or xdist's controller."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._records: list[dict[str, Any]] = []
        self._collected: set[str] = set()
        self._interrupted: str | None = None
        self._hook_error = ""
        """The exception of the first hook of the team that failed."""

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        self._collected.add(item.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Iterable[str]) -> None:
        self._collected.update(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        record = getattr(report, "llmmem", None)
        if record is not None:
            self._records.append(record)
            self._tell_hooks(record)

    def _tell_hooks(self, record: dict[str, Any]) -> None:
        """Call the team's own hooks; their exceptions are reported at the end."""
        hook = self._config.hook.pytest_llmmem_record
        if not hook.get_hookimpls():
            return
        from pytest_llmmem.core.records import TestRecord

        try:
            hook(record=TestRecord.from_json(record), config=self._config)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the session goes on
            self._hook_error = (
                self._hook_error or f"llmmem: pytest_llmmem_record raised {type(error).__name__}: {error}"
            )

    def pytest_keyboard_interrupt(self, excinfo: "pytest.ExceptionInfo[BaseException]") -> None:
        """Also of ``pytest.exit``."""
        self._interrupted = str(excinfo.value) or "by hand"

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        if not self._records and not is_any_given(config):
            return
        settings = settings_of(config)
        if not self._records and not settings.report and not settings.baseline_update:
            return
        on_github = os.environ.get("GITHUB_ACTIONS") == "true"
        from pytest_llmmem.core.launch import rank_of
        from pytest_llmmem.plugin.report import files
        from pytest_llmmem.reports import terminal

        if rank_of(os.environ):  # the ranks of one launch run the same tests: the first of them writes
            if self._hook_error:
                terminalreporter.write_line(self._hook_error)
            return
        record = self._session_record()
        verbosity = config.get_verbosity()
        lines = [*terminal.table(record, verbosity=verbosity), *self._baselines(record, config)]
        if lines:
            here = settings.isolate == "none"
            terminalreporter.write_sep("=", "memory of tests in this process" if here else "memory of isolated tests")
        for line in (*lines, *filter(None, [self._hook_error])):
            terminalreporter.write_line(line)
        for path in settings.report:
            line = files.write(config, path, record)
            if verbosity >= 0 or "not written" in line:
                terminalreporter.write_line(line)
        if on_github:
            _tell_github(record, terminalreporter, _in_repository(config.rootpath))

    def _baselines(self, record: "SessionRecord", config: pytest.Config) -> list[str]:
        from pytest_llmmem.plugin.report import baselines as baselining

        path = baselining.baselines_path(config, settings_of(config))
        if path is None or not record.tests:
            return []
        settings = settings_of(config)
        tell = baselining.write if settings.baseline_update else baselining.messages
        try:
            return tell(path, record, settings, baselining.Collected.by(config, self._collected))
        except LlmmemError as error:
            return [str(error)]

    def _session_record(self) -> "SessionRecord":
        from pytest_llmmem.core.records import SessionRecord, TestRecord
        from pytest_llmmem.plugin.report.environment import environment

        tests = tuple(TestRecord.from_json(record) for record in self._records)
        return SessionRecord(
            environment=environment(settings_of(self._config)), tests=tests, interrupted=self._interrupted
        )


def _tell_github(record: "SessionRecord", terminalreporter: Any, folder: str) -> None:
    """The step summary, and an annotation at each test that failed."""
    from pytest_llmmem.reports import github

    for line in github.annotations(record, folder=folder):
        terminalreporter.write_line(line)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with open(summary, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(github.summary(record))
        except OSError as error:
            terminalreporter.write_line(
                f"llmmem: no summary: $GITHUB_STEP_SUMMARY cannot be written ({error.strerror})"
            )


def _in_repository(root: Path) -> str:
    """Pytest's root as the repository names it; ``""`` for the repository itself, or outside of it."""
    from pytest_llmmem.core.long_paths import resolved

    root, checkout = resolved(root), resolved(Path(os.environ.get("GITHUB_WORKSPACE") or root))
    return root.relative_to(checkout).as_posix() if checkout in root.parents else ""
