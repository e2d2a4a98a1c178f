"""Convert measurements to pytest's reports, in order: verdicts become failures, deaths become reports."""

import dataclasses
from collections.abc import Sequence
from typing import Final

import pytest

from pytest_llmmem.baselines.compare import Comparison
from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.endings import PHASES, Ending, PhaseName
from pytest_llmmem.core.errors import BaselineExceeded, BudgetExceeded, WorkerCrashed
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.stacks import Stack
from pytest_llmmem.plugin.compat import evaluate_xfail, is_of_subtest, make_report
from pytest_llmmem.reports import failure

_BREACH: Final = "llmmem_breach"
"""Set on the report that fails because of a broken budget."""


class _Failed(pytest.fail.Exception):  # type: ignore[misc,name-defined]  # pytest gives its exceptions as attributes
    """A failure that is shown as its message, without a traceback of ours."""

    # pytest's summary line gives the class with its module, except for what is built in
    __module__ = "builtins"
    __qualname__ = "Failed"

    def __init__(self, message: str) -> None:
        pytest.fail.Exception.__init__(self, message, pytrace=False)


class _OverBudget(BudgetExceeded, _Failed):
    """The exception that ``xfail(raises=BudgetExceeded)`` matches."""

    __module__ = "builtins"
    __qualname__ = BudgetExceeded.__qualname__
    __init__ = _Failed.__init__


class _Grown(BaselineExceeded, _Failed):
    """The exception that ``xfail(raises=BaselineExceeded)`` matches."""

    __module__ = "builtins"
    __qualname__ = BaselineExceeded.__qualname__
    __init__ = _Failed.__init__


class _Died(WorkerCrashed, _Failed):
    """The exception that ``xfail(raises=WorkerCrashed)`` matches."""

    __module__ = "builtins"
    __qualname__ = WorkerCrashed.__qualname__
    __init__ = _Failed.__init__


def complete_reports(
    item: pytest.Item, reports: list[pytest.TestReport], measured: Measured
) -> tuple[list[pytest.TestReport], Ending]:
    """The worker's reports, with what is missing made up for and with broken budgets as failures."""
    ending = measured.ending
    broken = broken_budgets(measured)
    called = any(report.when == "call" for report in _of_test(reports))
    if broken and ending.kind == "over_budget" and called and _highest_phase(measured) != "teardown":
        # the call was over before its stop arrived: its own report says what happened, not a death in teardown
        after = [] if any(report.when == "teardown" for report in reports) else [passed_report(item, "teardown")]
        return [*with_breach(item, reports, broken, measured), *after], dataclasses.replace(ending, phase="call")
    if ending.died:
        ending = dataclasses.replace(ending, phase=_phase_of_death(reports, ending.phase))
        return _with_death(item, reports, dataclasses.replace(measured, ending=ending)), ending
    if broken:
        reports = with_breach(item, reports, broken, measured)
    elif ending.rank is not None:
        section = ("llmmem: ranks", "\n".join(failure.rank_lines(measured.ranks)))
        for report in filter(_has_failed, reports):
            report.sections.append(section)
    return reports, ending_of(reports, ending)


def ending_of(reports: Sequence[pytest.TestReport], ending: Ending) -> Ending:
    """The ending of a test whose process lives on, according to its reports."""
    if any(getattr(report, _BREACH, None) for report in reports):
        return dataclasses.replace(ending, kind="over_budget")
    failed = next((report.when for report in reports if report.failed), None)
    return dataclasses.replace(ending, kind="raised", phase=failed) if failed else ending


def broken_budgets(measured: Measured) -> list[Verdict]:
    """Those that fail a test."""
    return [verdict for verdict in measured.verdicts if not verdict.held]


def _has_failed(report: pytest.TestReport) -> bool:
    return bool(report.failed)


def _of_test(reports: Sequence[pytest.TestReport]) -> list[pytest.TestReport]:
    """The reports of the test itself, without those of its subtests."""
    return [report for report in reports if not is_of_subtest(report)]


def _highest_phase(measured: Measured) -> str | None:
    phases = [phase for phase in measured.phases if phase.name in PHASES]
    return max(phases, key=lambda phase: phase.peak_bytes).name if phases else None


def failed_report(item: pytest.Item, when: PhaseName, error: BaseException, seconds: float = 0.0) -> pytest.TestReport:
    """The report that pytest makes of an error, so that xfail and what is printed are as always."""
    evaluate_xfail(item)

    def raise_it() -> None:
        raise error

    call = pytest.CallInfo.from_call(raise_it, when)
    report = make_report(item, call)
    report.duration = seconds
    return report


def passed_report(item: pytest.Item, when: PhaseName) -> pytest.TestReport:
    """The report of a phase in which nothing happened."""
    return make_report(item, pytest.CallInfo.from_call(lambda: None, when))


def complaint_reports(item: pytest.Item, message: str) -> list[pytest.TestReport]:
    """The reports of a test that could not be run at all."""
    return [
        passed_report(item, "setup"),
        failed_report(item, "call", _Failed(message)),
        passed_report(item, "teardown"),
    ]


def setup_failure(item: pytest.Item, message: str) -> pytest.TestReport:
    """The report of a setup that failed with a message, and no traceback."""
    return failed_report(item, "setup", _Failed(message))


def skipped_reports(item: pytest.Item, reason: str) -> list[pytest.TestReport]:
    """The reports of a test that is not for this machine."""
    file, line, _ = item.location
    skipped = passed_report(item, "setup")
    skipped.outcome, skipped.longrepr = "skipped", (file, (line or 0) + 1, f"Skipped: {reason}")
    return [skipped, passed_report(item, "teardown")]


def _phase_of_death(reports: Sequence[pytest.TestReport], running: PhaseName | None) -> PhaseName:
    """The phase that was running, or, when its report is out already, the one that would have followed."""
    done = {report.when: report for report in _of_test(reports)}
    phase: PhaseName = running or ("teardown" if "setup" in done else "setup")
    if phase == "setup" and "setup" in done:
        phase = "call" if done["setup"].passed else "teardown"
    return "teardown" if phase == "call" and "call" in done else phase


def _with_death(item: pytest.Item, reports: Sequence[pytest.TestReport], measured: Measured) -> list[pytest.TestReport]:
    phase = measured.ending.phase
    assert phase is not None, "a death has a phase"
    lived = sum(report.duration for report in reports)
    message = failure.death_sentence(measured)
    error = _OverBudget(message) if measured.ending.kind == "over_budget" else _Died(message)
    death = failed_report(item, phase, error, max(0.0, measured.seconds - lived))
    death.sections.append(("llmmem", failure.details(measured, root=str(item.config.rootpath))))
    for name, text in zip(("stdout", "stderr"), measured.output, strict=True):
        if text:
            death.sections.append((f"Captured {name} {phase}, the last of it", text))
    # pytest-rerunfailures holds reports back until the test is over
    before = [passed_report(item, "setup")] if phase != "setup" and not reports else []
    after = [] if phase == "teardown" else [passed_report(item, "teardown")]
    return [*before, *reports, death, *after]


def with_breach(
    item: pytest.Item, reports: Sequence[pytest.TestReport], broken: Sequence[Verdict], measured: Measured
) -> list[pytest.TestReport]:
    """A test that broke a budget fails in its call; one that failed anyway keeps its own failure.

    An error that says that memory was refused is the breach itself, in whatever phase.
    """
    section = ("llmmem", failure.details(measured, root=str(item.config.rootpath)))
    refused = next(filter(_has_failed, _of_test(reports)), None) if measured.refusing_limit else None
    replaced = []
    for report in reports:
        is_xpass = str(report.longrepr).startswith("[XPASS(strict)]")
        passed_call = report.when == "call" and not is_of_subtest(report) and (report.passed or is_xpass)
        if passed_call or report is refused:
            error = _OverBudget("; ".join(verdict.sentence for verdict in broken))
            over = failed_report(item, report.when, error, report.duration)
            traceback = [("What was refused", report.longreprtext)] if report is refused else []
            over.sections = [*traceback, *report.sections, section]
            over.user_properties = report.user_properties
            setattr(over, _BREACH, "yes")
            replaced.append(over)
        else:
            if report.failed:
                report.sections.append(section)
            if BudgetExceeded.__name__ in str(getattr(report.longrepr, "reprcrash", "")):
                setattr(report, _BREACH, "yes")
            replaced.append(report)
    return replaced


def with_comparison(
    item: pytest.Item, reports: Sequence[pytest.TestReport], comparison: Comparison, stack: Stack
) -> list[pytest.TestReport]:
    """A test that grew beyond its tolerance fails in its call; one that failed anyway keeps its own failure.

    ``stack`` is of the moment in which it did.
    """
    if comparison.verdict != "grew":
        return list(reports)
    lines = (*comparison.details(), *failure.stack_lines(stack, root=str(item.config.rootpath)))
    section = ("llmmem: baseline", "\n".join(lines))
    replaced = []
    for report in reports:
        if report.when == "call" and report.passed and not is_of_subtest(report):
            grown = failed_report(item, "call", _Grown(comparison.sentence()), report.duration)
            grown.sections = [*report.sections, section]
            grown.user_properties = report.user_properties
            replaced.append(grown)
        else:
            replaced.append(report)
    return replaced
