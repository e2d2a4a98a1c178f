"""The record of a test, and the places where other tools expect it."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import pytest

from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.record_parts import Diagnosis, ModelRecord, Outcome, TrialRecord
from pytest_llmmem.core.records import TestRecord
from pytest_llmmem.core.stacks import Stack
from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.plugin.collect.planning import IsolatedTest
from pytest_llmmem.plugin.markers import LlmBaseline
from pytest_llmmem.plugin.report import pytest_reports
from pytest_llmmem.plugin.worker.messages import Raised
from pytest_llmmem.reports.terminal import trial_table

RECORD: Final = "llmmem"
"""The attribute of a test's last report that carries its record, as plain JSON: it survives xdist."""


def _own_tolerance(item: pytest.Item) -> str | None:
    marker = LlmBaseline.of(item)
    return marker.tolerance.text if marker and marker.tolerance else None


def record_of(
    item: pytest.Item,
    reports: Sequence[pytest.TestReport],
    measured: Measured,
    ending: Ending,
    model: ModelRecord | None,
    *,
    raised: Raised | None,
    trials: tuple[TrialRecord, ...],
    diagnosis: Diagnosis | None,
    steps: tuple[StepMemory, ...],
) -> TestRecord:
    """All of it as one record."""
    outcome = outcome_of(reports)
    refused = raised.out_of_vram if raised else None
    skipped = raised.text if raised and outcome == "skipped" else ""
    record = TestRecord(
        nodeid=item.nodeid,
        outcome=outcome,
        tolerance=_own_tolerance(item),
        duration_s=measured.seconds,
        ending=dataclasses.replace(
            ending,
            note=ending.note or skipped,
            error=raised.line if raised and not skipped else None,
            place=measured.place,
        ),
        ram=measured.peak,
        vram=measured.vram,
        vram_refused=refused.record() if refused else None,
        phases=measured.phases,
        budgets=measured.verdicts,
        model=model,
        alive=measured.alive,
        children=measured.children,
        notes=measured.notes,
        timeline=measured.timeline,
        trials=trials,
        diagnosis=diagnosis,
        steps=steps,
        ranks=measured.ranks,
        pinned_bytes=measured.pinned_bytes,
        disk_written_bytes=measured.written_bytes,
        location=_location(item),
    )
    return with_stack(record, measured.stack, root=str(item.config.rootpath))


def with_stack(record: TestRecord, stack: Stack, *, root: str) -> TestRecord:
    """The record with a stack, if there is one; files below ``root`` are named relative to it."""
    if not stack.frames:
        return record
    return dataclasses.replace(
        record,
        stack=tuple(frame.shown(root) for frame in stack.users_first),
        stack_at=stack.at,
        stack_own=len(stack.users),
        stack_cut=stack.cut,
    )


def reports_without_run(item: pytest.Item, isolated: IsolatedTest) -> list[pytest.TestReport]:
    """The reports of a test that has no plan."""
    if isolated.why_skipped:
        return not_run(item, pytest_reports.skipped_reports(item, isolated.why_skipped), isolated.why_skipped)
    return not_run(item, pytest_reports.complaint_reports(item, isolated.complaint), isolated.complaint)


def none_fits(item: pytest.Item, trials: tuple[TrialRecord, ...]) -> list[pytest.TestReport]:
    """The reports of a test for which no load fits: it is not run, so nothing else is judged."""
    text = "\n".join(("no load fits:", *trial_table(trials)))
    reports = [pytest_reports.setup_failure(item, text), pytest_reports.passed_report(item, "teardown")]
    record = TestRecord(
        nodeid=item.nodeid,
        outcome=outcome_of(reports),
        duration_s=0.0,
        ending=Ending(kind="raised", phase="setup", error="Failed: no load fits:"),
        ram=None,
        trials=trials,
        location=_location(item),
    )
    attach(reports, record)
    return reports


def not_run(item: pytest.Item, reports: list[pytest.TestReport], reason: str) -> list[pytest.TestReport]:
    """The reports, a record attached, of a test that could not be run at all, or is not for this machine."""
    outcome = outcome_of(reports)
    failed = Ending(kind="raised", phase="call", error=f"Failed: {reason}")
    record = TestRecord(
        nodeid=item.nodeid,
        outcome=outcome,
        duration_s=0.0,
        ending=Ending(kind="completed", note=reason) if outcome == "skipped" else failed,
        ram=None,
        location=_location(item),
    )
    attach(reports, record)
    return reports


def outcome_of(reports: Sequence[pytest.TestReport]) -> Outcome:
    """One word for a test, of the words that pytest's own summary uses."""
    if any(report.failed and report.when != "call" for report in reports):
        return "error"
    for report in reports:
        expected = hasattr(report, "wasxfail")
        if report.failed:
            return "failed"
        if report.skipped:
            return "xfailed" if expected else "skipped"
        if expected and report.when == "call":
            return "xpassed"
    return "passed"


def _location(item: pytest.Item) -> str:
    path, line, _ = item.location
    return f"{path}:{(line or 0) + 1}"


def attach(reports: Sequence[pytest.TestReport], record: TestRecord) -> None:
    """Attach the numbers for other tools: user properties on every report, the record on the last."""
    properties: list[tuple[str, Any]] = [("llm_ending", record.ending.kind)]
    if record.ram is not None:
        properties += [
            ("llm_peak_ram_bytes", record.ram.peak_bytes),
            ("llm_peak_resident_bytes", record.ram.peak_resident_bytes),
        ]
    properties += [("llm_breach", budget.sentence) for budget in record.budgets if not budget.held]
    for report in reports:
        report.user_properties = [*report.user_properties, *properties]
    if reports:
        setattr(reports[-1], RECORD, record.to_json())
