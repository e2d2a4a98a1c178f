"""Runs isolated tests: takes a worker for each, has it measured and judged, and completes its reports."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pytest

from pytest_llmmem.baselines.values import median_run
from pytest_llmmem.core.hints import setup_again_note
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.record_parts import TrialRecord
from pytest_llmmem.core.records import TestRecord
from pytest_llmmem.core.stacks import NO_STACK, Stack
from pytest_llmmem.plugin.collect.planning import IsolatedTest
from pytest_llmmem.plugin.collect.vram_budgets import caps_of, find_driver, history_file, history_notes
from pytest_llmmem.plugin.report import baselines as baselining
from pytest_llmmem.plugin.report import pytest_reports
from pytest_llmmem.plugin.report import record as recording
from pytest_llmmem.plugin.report.late_verdicts import with_growth, with_refusal
from pytest_llmmem.plugin.run.diagnosis import explain
from pytest_llmmem.plugin.run.first_fit import try_loads
from pytest_llmmem.plugin.run.inbox import Inbox
from pytest_llmmem.plugin.run.pool import Pool
from pytest_llmmem.plugin.run.progress import Progress
from pytest_llmmem.plugin.run.queue import MemoryQueue
from pytest_llmmem.plugin.run.ranks import run_in_ranks
from pytest_llmmem.plugin.settings import Settings
from pytest_llmmem.plugin.state import TIMEOUT, find_checkpoint
from pytest_llmmem.plugin.worker.main import item_keys
from pytest_llmmem.plugin.worker.messages import Aborted, ItemKey, Job
from pytest_llmmem.probes import driver
from pytest_llmmem.supervision.job import measure_job
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.workers.worker import Worker
from pytest_llmmem.workers.worker_source import NoWorkerError

_MEASURED_AGAIN: Final = 2


class Runner:
    """The isolated tests of a session, one after the other: each in a worker of its own, a group's in one."""

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        items: list[pytest.Item],
        isolated: Mapping[pytest.Item, IsolatedTest],
        pool: Pool,
    ) -> None:
        """Raises ``BaselineError``."""
        self.pool = pool
        self._config = config
        self._settings = settings
        self._isolated = isolated
        self._keys: dict[pytest.Item, ItemKey] = {item: key for key, item in item_keys(items).items()}
        self._numbers = {item: number for number, item in enumerate(items)}
        path = baselining.baselines_path(config, settings)
        self._judge = baselining.Judge(path, settings) if path else None
        self._queue = MemoryQueue(config, isolated)
        self._driver = find_driver([one.plan for one in isolated.values() if one.plan], settings)
        self._group: Worker | None = None
        """The worker that the next test of the same group goes on in."""
        self._lost_in: str | None = None
        """The test in which the worker ended that the next test of the same group would have gone on in."""

    def run(
        self, item: pytest.Item, nextitem: pytest.Item | None, isolated: IsolatedTest
    ) -> tuple[list[pytest.TestReport], Aborted | None]:
        """Run a test when what it may use is free. Returns its reports, and whether it asked to end the session."""
        try:
            self._queue.begin(item, isolated)
            return self._run(item, nextitem, isolated)
        finally:
            if self._group is None:
                self._queue.end()

    def drain(self) -> None:
        """Wait until every worker has left."""
        self.pool.source.drain()

    def close(self) -> None:
        """End every process, and remove every file of ours."""
        if self._group is not None:
            self._group.kill()
            self._group.close()
        self._queue.end()
        self.pool.close()
        driver.close()

    def _run(
        self, item: pytest.Item, nextitem: pytest.Item | None, isolated: IsolatedTest
    ) -> tuple[list[pytest.TestReport], Aborted | None]:
        """Run a test, as often as asked to; the run in the middle counts, or the one that fails."""
        trials = try_loads(self.pool, item, self._keys[item], self._plan(item, isolated), self._driver)
        if trials and not trials[-1].fits:
            return recording.none_fits(item, trials), None
        runs = [self._run_once(item, nextitem, isolated, trials, run=0)]
        while self._is_run_again(item, isolated, runs):
            runs.append(self._run_once(item, nextitem, isolated, trials, run=len(runs)))
        if runs[-1].record is None:
            return runs[-1].reports, runs[-1].aborted
        records = [run.record for run in runs if run.record]
        counted = self._judge.clear(item, records) if self._judge and runs[-1].can_be_repeated else records
        chosen = runs[-1] if not runs[-1].can_be_repeated else runs[records.index(median_run(counted))]
        record = chosen.record
        assert record is not None, "the others have left already"
        if len(counted) > 1:
            peaks = tuple(record.ram.peak_bytes for record in counted if record.ram)
            record = dataclasses.replace(record, run_peaks_bytes=peaks)
        if len(runs) > self._settings.repeat:
            again = f"run {len(runs)} times: the error of measuring was larger than the tolerance of its baseline"
            record = dataclasses.replace(record, notes=(*record.notes, again))
        reports = chosen.reports
        if self._judge is not None and (comparison := self._judge.judge(item, counted)):
            reports = pytest_reports.with_comparison(item, reports, comparison, chosen.growth_stack)
            record = dataclasses.replace(
                record, outcome=recording.outcome_of(reports), baseline=baselining.record_of(comparison)
            )
            if comparison.verdict == "grew" and not record.stack:
                record = recording.with_stack(record, chosen.growth_stack, root=str(item.config.rootpath))
        recording.attach(reports, record)
        return reports, chosen.aborted

    def _is_run_again(self, item: pytest.Item, isolated: IsolatedTest, runs: "Sequence[_Ran]") -> bool:
        """As often as asked to, and up to twice more when its baseline cannot be compared with what was measured."""
        if isolated.group is not None or not runs[-1].can_be_repeated:
            return False
        if len(runs) < self._settings.repeat:
            return True
        if self._judge is None or len(runs) >= self._settings.repeat + _MEASURED_AGAIN:
            return False
        return self._judge.asks_for_another(item, [run.record for run in runs if run.record])

    def _run_once(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        isolated: IsolatedTest,
        trials: tuple[TrialRecord, ...],
        *,
        run: int,
    ) -> "_Ran":
        goes_on = isolated.group is not None and self._group_of(nextitem) == isolated.group
        lost_in, self._lost_in = self._lost_in, None
        plan = self._plan(item, isolated)
        plan = plan if lost_in is None else plan.without_setup()
        history = history_file(item, (*plan.budgets, *plan.rank_budgets), self._settings)
        following = self._keys[nextitem] if goes_on and nextitem else None
        number = self._numbers[item] * (self._settings.repeat + _MEASURED_AGAIN) + run
        job = Job(self._keys[item], following, number, trials, caps_of((*plan.budgets, *plan.rank_budgets)), history)
        progress = Progress.of(self._config, item, find_checkpoint)
        prepare = self.pool.source.prepare if nextitem is not None and not goes_on else lambda: None
        try:
            if plan.ranks > 1:
                measured, inbox = run_in_ranks(
                    self.pool, item, job, plan, progress=progress, driver=self._driver, ready=prepare
                )
            else:
                inbox = Inbox(item, progress)
                measured = self._measure(job, plan, inbox, goes_on=goes_on, was_lost=lost_in is not None, ready=prepare)
        except NoWorkerError as error:
            complaint = f"no worker could be made: {error}"
            return _Ran(recording.not_run(item, pytest_reports.complaint_reports(item, complaint), complaint))
        except KeyboardInterrupt:
            msg = f"while {item.nodeid} ran"
            raise KeyboardInterrupt(msg) from None
        finally:
            progress.erase()
        model = inbox.model(find_checkpoint(item))
        again = [setup_again_note(lost_in, measured.phases)] if lost_in else []
        measured = dataclasses.replace(
            measured,
            phases=inbox.phases(measured),
            notes=(
                *self.pool.take_notes(),
                *measured.notes,
                *again,
                *inbox.notes(measured, model),
                *self._queue.notes,
                *history_notes(history),
            ),
        )
        measured = with_refusal(with_growth(measured, isolated.growth, inbox.growth), inbox.raised)
        reports, ending = pytest_reports.complete_reports(item, inbox.reports(), measured)
        diagnosis = explain(reports, measured, ending, inbox, find_checkpoint(item))
        record = recording.record_of(
            item,
            reports,
            measured,
            ending,
            model,
            raised=inbox.raised,
            trials=trials,
            diagnosis=diagnosis,
            steps=inbox.steps,
        )
        return _Ran(reports, record, inbox.aborted, measured.growth_stack)

    def _measure(
        self, job: Job, plan: JobPlan, inbox: Inbox, *, goes_on: bool, was_lost: bool, ready: Callable[[], None]
    ) -> Measured:
        """Run a test in a worker of its own, or in that of its group. Raises ``NoWorkerError``."""
        reused, self._group = self._group, None
        worker = reused or self.pool.take()
        ready()
        try:
            measured = measure_job(worker, job, last=not goes_on, plan=plan, listener=inbox, driver=self._driver)
        finally:
            if worker.exit is not None:
                self.pool.files.sweep()
        if goes_on and not worker.is_ending and worker.exit is None:
            self._group = worker
        elif goes_on:
            # its stop came too late for this test, and must not reach the next one
            worker.kill()
            worker.close()
        if goes_on and self._group is None and (reused or was_lost or inbox.is_set_up):
            self._lost_in = inbox.item.nodeid
        return measured

    def _plan(self, item: pytest.Item, isolated: IsolatedTest) -> JobPlan:
        assert isolated.plan is not None, "only planned tests run"
        timeout_s = isolated.plan.timeout_s or item.stash.get(TIMEOUT, None)
        allows_bytes = self._judge.allows_bytes(item) if self._judge else None
        return dataclasses.replace(isolated.plan, timeout_s=timeout_s, baseline_allows_bytes=allows_bytes)

    def _group_of(self, item: pytest.Item | None) -> str | None:
        isolated = self._isolated.get(item) if item is not None else None
        return isolated.group if isolated else None


@dataclass(frozen=True, slots=True)
class _Ran:
    """One run of a test."""

    reports: list[pytest.TestReport]
    record: TestRecord | None = None
    """``None`` when there was no worker for it."""
    aborted: Aborted | None = None
    growth_stack: Stack = NO_STACK

    @property
    def can_be_repeated(self) -> bool:
        """Whether the test did what was expected of it."""
        return not self.aborted and self.record is not None and self.record.outcome in {"passed", "xfailed", "xpassed"}
