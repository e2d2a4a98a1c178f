"""The folder of a sweep: one file for each result, written once and whole; what is there is not run again."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pytest_llmmem.core.records import CellRecord, SessionRecord, TestRecord
from pytest_llmmem.reports import merging
from pytest_llmmem.reports.wording import FAILURES, reasons, state
from pytest_llmmem.sweep.cells import Cell
from pytest_llmmem.sweep.driver import Ended, Missing
from pytest_llmmem.sweep.jobs import Job

_SUCCEEDED: Final = 0
_TESTS_FAILED: Final = 1
_WRONG_USAGE: Final = 4
_MANY_TESTS: Final = 500
"""Above this number, the merged record has only the timelines of failed tests; the cell's own file has all."""

Stored = Mapping[str, Any]
"""A result, with the job that it is of (``job``), and where that ran (``node``, ``tries``)."""


class Results:
    """Results of a sweep so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._missing: dict[str, str] = {}
        """Why a job has no result, by its name: not kept, since a later start may have the node for it."""

    def load(self, job: Job) -> Stored | None:
        """The result of this very job; ``None`` when there is none, or it was made by another file or environment."""
        try:
            stored: Stored = json.loads(self._path(job.name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return stored if stored.get("job") == json.loads(json.dumps(job.to_json())) else None

    def keep(self, ended: Ended) -> None:
        """Write a result; the first one stays when there is one already."""
        if isinstance(ended.result, Missing):
            self._missing[ended.job.name] = ended.result.why
            return
        stored = {"job": ended.job.to_json(), "node": ended.node, "tries": ended.tries, **ended.result}
        path = self._path(ended.job.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.write_text(json.dumps(stored), encoding="utf-8")
        new.replace(path)

    def give_up(self, name: str, why: str) -> None:
        """Note why a job cannot be made."""
        self._missing[name] = why

    def why_missing(self, name: str) -> str:
        """Why a job has no result, as far as that is known."""
        return self._missing.get(name, "it was not run")

    def record(self, cells: Sequence[Cell], jobs: Mapping[str, Job]) -> SessionRecord:
        """All results as one record, in the order of the cells."""
        sessions = [self._session(cell, jobs.get(cell.name)) for cell in cells]
        count = sum(len(session.tests) for _, session in sessions)
        if count > _MANY_TESTS:
            sessions = [
                (cell, replace(each, tests=tuple(map(_without_timeline, each.tests)))) for cell, each in sessions
            ]
        return merging.merge(sessions)

    def summary(self, cell: Cell, job: Job | None) -> CellRecord:
        """Outcome of a cell."""
        return self._session(cell, job)[0]

    def _session(self, cell: Cell, job: Job | None) -> tuple[CellRecord, SessionRecord]:
        stored = self.load(job) if job else None
        session = SessionRecord(environment={}, tests=())
        known: dict[str, Any] = {"model": cell.label, "load": cell.load, "environment": cell.environment.name}
        if stored is None:
            return CellRecord(
                name=cell.name, outcome="missing", sentence=self.why_missing(f"cells/{cell.name}"), **known
            ), session
        if stored["report"] is not None:
            session = SessionRecord.from_json(stored["report"])
        sentence = _problem(stored, session, job)
        summary = replace(
            merging.cell_of(cell.name, session),
            **known,
            outcome="failed" if sentence else "passed",
            sentence=sentence,
            seconds=stored["seconds"],
            node=stored["node"],
            claim_bytes=stored["job"]["memory_bytes"],
        )
        return summary, session

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def complaint(stored: Stored) -> str:
    """Why a job has no report: one sentence."""
    if stored["error"]:
        return f"it could not be started: {stored['error']}"
    printed = stored["stderr"].strip() or stored["stdout"].strip() or "nothing was printed"
    lines = [line.strip() for line in printed.splitlines()]
    told = next((line for line in lines if line.startswith(("ERROR: ", "llmmem: "))), lines[-1])
    how = f"signal {-stored['exit_code']}" if stored["exit_code"] < 0 else f"exit code {stored['exit_code']}"
    return f"it ended with {how} and without a report: {told.removeprefix('ERROR: ')}"


def has_begun(stored: Stored) -> bool:
    """Whether a session came as far as its tests: one that did not may, once a path or the Hub is there, so it is run again."""
    return stored["error"] is None and stored["exit_code"] != _WRONG_USAGE


def _problem(stored: Stored, session: SessionRecord, job: Job | None) -> str:
    """Reason why a cell failed; empty when it passed."""
    if stored["timed_out"] and job:
        return f"it was ended after {job.timeout_s:g} s (cell_timeout)"
    if stored["report"] is None:
        return complaint(stored)
    failed = [test for test in session.tests if test.outcome in FAILURES]
    if failed:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        told = (
            f"{_name(failed[0])} {state(failed[0])}",
            *(reason.removeprefix("Failed: ") for reason in reasons(failed[0])[:1]),
        )
        return f"{': '.join(told)}{more}"
    unusable = [test for test in session.tests if test.ending.note.startswith("llm_load ")]
    if unusable:
        return unusable[0].ending.note
    if stored["exit_code"] not in {_SUCCEEDED, _TESTS_FAILED}:
        return f"pytest ended with exit code {stored['exit_code']}"
    return "" if stored["exit_code"] == _SUCCEEDED else "a test that ran outside of a worker failed"


def _name(test: TestRecord) -> str:
    return test.nodeid.rpartition("::")[2].partition("[")[0]


def _without_timeline(test: TestRecord) -> TestRecord:
    return test if test.outcome in FAILURES else replace(test, timeline=None)
