"""Collects the records of all tests, from xdist's workers too, and hands them to the renderers at the end."""

import platform
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmmem.plugin.settings import Settings

if TYPE_CHECKING:
    from pytest_llmmem.core.records import SessionRecord


class Reporting:
    """Lives in the process that talks to the user: pytest's own, or xdist's controller."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._records: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        record = getattr(report, "llmmem", None)
        if record is not None:
            self._records.append(record)

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        if not self._records and not self._settings.report:
            return
        from pytest_llmmem.reports import json, terminal

        record = self._session_record()
        lines = list(terminal.table(record, verbosity=config.get_verbosity()))
        if lines:
            terminalreporter.write_sep("=", "memory of isolated tests")
        for line in lines:
            terminalreporter.write_line(line)
        for path in self._settings.report:
            path.write_text(json.render(record), encoding="utf-8")
            if config.get_verbosity() >= 0:
                terminalreporter.write_line(f"llmmem: wrote {path}")

    def _session_record(self) -> "SessionRecord":
        from pytest_llmmem.core.records import SessionRecord, TestRecord

        tests = tuple(TestRecord.from_json(record) for record in self._records)
        return SessionRecord(environment=environment(self._settings), tests=tests)


def environment(settings: Settings) -> dict[str, str | int | float | None]:
    """Where the numbers come from; versions of libraries without importing them."""
    from importlib.metadata import PackageNotFoundError, version

    from pytest_llmmem import probes

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    libraries = ("pytest-llmmem", "pytest", "torch", "transformers", "accelerate", "safetensors")
    host = probes.host_memory()
    return {
        "python": platform.python_version(),
        "platform": sys.platform,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "host_bytes": host.total_bytes,
        "host_limited_by": host.limited_by,
        "malloc": settings.malloc,
        "mark_error_bytes": probes.mark_error_bytes(),
        **{name: installed(name) for name in libraries},
    }
