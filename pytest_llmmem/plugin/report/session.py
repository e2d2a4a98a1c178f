"""Collects the records of all tests, from xdist's workers too, and hands them to the renderers at the end."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.plugin.options import REPORT_ENDINGS, is_any_given
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

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        self._collected.add(item.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Iterable[str]) -> None:
        self._collected.update(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        record = getattr(report, "llmmem", None)
        if record is not None:
            self._records.append(record)

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
        from pytest_llmmem.reports import terminal

        rank = rank_of(os.environ) or 0

        record = self._session_record()
        verbosity = config.get_verbosity()
        lines = [*terminal.table(record, verbosity=verbosity), *self._baselines(record, config, rank)]
        if lines:
            here = settings.isolate == "none"
            terminalreporter.write_sep("=", "memory of tests in this process" if here else "memory of isolated tests")
        for line in lines:
            terminalreporter.write_line(line)
        for path in settings.report if rank == 0 else ():
            # an exception's text may hold what no encoding has
            path.write_text(_renderer(path)(record), encoding="utf-8", errors="backslashreplace")
            if verbosity >= 0:
                terminalreporter.write_line(f"llmmem: wrote {path}")
        if on_github and rank == 0:
            _tell_github(record, terminalreporter, _in_repository(config.rootpath))

    def _baselines(self, record: "SessionRecord", config: pytest.Config, rank: int) -> list[str]:
        """The ranks of one launch run the same tests: the first of them writes."""
        from pytest_llmmem.plugin.report import baselines as baselining

        path = baselining.baselines_path(config, settings_of(config))
        if path is None or not record.tests:
            return []
        settings = settings_of(config)
        if settings.baseline_update and rank:
            return []
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


def _renderer(path: Path) -> "Callable[[SessionRecord], str]":
    from pytest_llmmem.reports import html, json, markdown, trace

    renderers = {"trace.json": trace.render, ".json": json.render, ".html": html.render, ".md": markdown.render}
    return renderers[next(ending for ending in REPORT_ENDINGS if path.name.endswith(ending))]


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
    checkout = Path(os.environ.get("GITHUB_WORKSPACE") or root).resolve()
    return root.relative_to(checkout).as_posix() if checkout in root.parents else ""
