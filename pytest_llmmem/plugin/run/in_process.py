"""Tests in pytest's own process (``--llm-isolate=none``, ``--pdb``): measured by the high-water mark, judged afterwards."""

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from pytest_llmmem import probes
from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.hints import uncertain_notes
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.measuring.connection import Account, using
from pytest_llmmem.plugin.collect.planning import IsolatedTest
from pytest_llmmem.plugin.report import pytest_reports
from pytest_llmmem.plugin.report import record as recording
from pytest_llmmem.plugin.report.late_verdicts import with_growth
from pytest_llmmem.plugin.run.inbox import Inbox
from pytest_llmmem.plugin.run.progress import NoProgress
from pytest_llmmem.plugin.state import find_checkpoint
from pytest_llmmem.plugin.worker.messages import Raised
from pytest_llmmem.plugin.worker.phases import Phases
from pytest_llmmem.plugin.worker.repeated_calls import RepeatedCalls
from pytest_llmmem.supervision.accounting import Accounting
from pytest_llmmem.workers.child import ParentConnection


class InProcess:
    """The role of a pytest that isolates nothing; registered only when there is something to measure."""

    def __init__(self, config: pytest.Config, tests: Mapping[pytest.Item, IsolatedTest], why: str) -> None:
        self._config = config
        self._tests = tests
        self._why = why
        self._phases = Phases()
        self._running: _Running | None = None

    def register(self) -> None:
        """Take the role, with what tells it of phases and repeats calls."""
        for plugin, name in (
            (self, "llmmem-isolation"),
            (self._phases, "llmmem-phases"),
            (RepeatedCalls(), "llmmem-repeated-calls"),
        ):
            self._config.pluginmanager.register(plugin, name)

    def describe(self) -> str:
        return (
            f"llmmem: nothing is isolated or guarded ({self._why}): {len(self._tests)} measured in this process; "
            "timeouts, on_breach, enforce and baselines are not applied"
        )

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        test = self._tests.get(item)
        if test is None or test.plan is None:
            return (yield)
        inbox = Inbox(item, NoProgress())
        account, connection = Account.open(test.plan.budgets, test.plan.terms, inbox.received)
        self._running = _Running(item, account.accounting, connection, inbox, test.growth)
        self._phases.begin(connection)
        try:
            with using(connection):
                return (yield)
        finally:
            self._phases.end()
            self._running = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if (test := self._tests.get(item)) and test.why_skipped:
            pytest.skip(test.why_skipped)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        if (test := self._tests.get(item)) and test.complaint and not test.why_skipped:
            pytest.fail(test.complaint, pytrace=False)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, call: "pytest.CallInfo[None]") -> Generator[None, pytest.TestReport, Any]:
        report = yield
        return report if self._running is None else self._running.judge(report, call)


@dataclass(slots=True)
class _Running:
    """The test that runs."""

    item: pytest.Item
    accounting: Accounting
    connection: ParentConnection
    inbox: Inbox
    growth: Budget | None
    """The budget of ``max_growth``."""
    _reports: list[pytest.TestReport] = field(default_factory=list)
    _has_broken: bool = False
    _began: float = field(default_factory=time.monotonic)

    def judge(self, report: pytest.TestReport, call: "pytest.CallInfo[None]") -> pytest.TestReport:
        """The report of a phase, failed when a budget is broken by its end; the last one carries the record."""
        if call.excinfo is not None and (report.failed or report.skipped):
            self.inbox.received(Raised.of(call.excinfo.value))
        if report.when == "setup" and report.passed:
            self._reports.append(report)
            return report
        self.connection.switch()
        measured = self._measured()
        broken = pytest_reports.broken_budgets(measured)
        if broken and not self._has_broken:
            self._has_broken = True
            (report,) = pytest_reports.with_breach(self.item, [report], broken, measured)
        self._reports.append(report)
        if report.when == "teardown":
            self._attach(report, measured)
        return report

    def _measured(self) -> Measured:
        verdicts = self.accounting.verdicts(at_least_bytes=0, unfinished=False)
        whole = self.accounting.whole
        measured = Measured(
            ending=Ending(kind="completed"),
            peak=replace(whole.peak, method=probes.METHOD) if whole else None,
            phases=self.accounting.phases(),
            verdicts=verdicts,
            seconds=time.monotonic() - self._began,
            notes=uncertain_notes(verdicts),
            vram=self.accounting.vram.peaks,
            pinned_bytes=self.accounting.pinned_bytes,
            written_bytes=self.accounting.written.bytes,
        )
        return with_growth(replace(measured, phases=self.inbox.phases(measured)), self.growth, self.inbox.growth)

    def _attach(self, last: pytest.TestReport, measured: Measured) -> None:
        checkpoint = find_checkpoint(self.item)
        model = self.inbox.model(checkpoint)
        ending = pytest_reports.ending_of(self._reports, measured.ending)
        record = recording.record_of(
            self.item,
            self._reports,
            measured,
            ending,
            model,
            raised=self.inbox.raised,
            trials=(),
            diagnosis=None,
            steps=self.inbox.steps,
        )
        recording.attach([last], record)
