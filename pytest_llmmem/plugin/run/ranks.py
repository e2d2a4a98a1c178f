"""A test in ranks: several workers run it at once, and the reports of one of them become the test's reports."""

import dataclasses
import shutil
import socket
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from pytest_llmmem.core.launch import Rank
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.record_parts import RankRecord
from pytest_llmmem.plugin.run.inbox import Inbox
from pytest_llmmem.plugin.run.pool import Pool
from pytest_llmmem.plugin.run.progress import NoProgress, Progress
from pytest_llmmem.plugin.run.trials import TrialInbox
from pytest_llmmem.plugin.worker.messages import Job, Trial
from pytest_llmmem.probes.driver import Driver
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.ranks import MeasuredRanks, RankJob, measure_ranks
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.worker import Worker
from pytest_llmmem.workers.worker_source import NoWorkerError

AnyInbox = TypeVar("AnyInbox", Inbox, TrialInbox)
"""The parent's side of one rank."""


def run_in_ranks(
    pool: Pool,
    item: pytest.Item,
    job: Job,
    plan: JobPlan,
    *,
    progress: Progress,
    driver: Driver,
    ready: Callable[[], None],
) -> tuple[Measured, Inbox]:
    """Run a test in its ranks. Returns what was measured, and the inbox of the rank whose reports become the test's reports.

    ``ready`` is called when all workers are there. Raises ``NoWorkerError``.
    """
    inboxes = [Inbox(item, NoProgress() if number else progress, rank=number) for number in range(plan.ranks)]
    measured, inbox = _measure(pool, job, plan, inboxes, driver=driver, ready=ready, root=str(item.config.rootpath))
    inbox.aborted = next((each.aborted for each in inboxes if each.aborted), None)
    return measured, inbox


def try_in_ranks(
    pool: Pool, trial: Trial, plan: JobPlan, *, driver: Driver, ready: Callable[[], None]
) -> tuple[Measured, TrialInbox]:
    """Try a load in ranks. Returns what was measured, and the inbox of the rank that failed, or else of the first one.

    Raises ``NoWorkerError``.
    """
    inboxes = [TrialInbox() for _ in range(plan.ranks)]
    return _measure(pool, trial, plan, inboxes, driver=driver, ready=ready, root="")


def _measure(
    pool: Pool,
    job: Job | Trial,
    plan: JobPlan,
    inboxes: Sequence[AnyInbox],
    *,
    driver: Driver,
    ready: Callable[[], None],
    root: str,
) -> tuple[Measured, AnyInbox]:
    """Run one job in each rank; ``root`` is the folder to which the files of stacks are shown relative."""
    with _rank_folder(pool.folder.path, plan.ranks) as (ranks, files):
        workers = _take(pool, files)
        ready()
        jobs = [
            RankJob(
                worker=worker,
                job=dataclasses.replace(job, rank=rank),
                plan=plan.of_rank(rank.number),
                listener=inbox,
            )
            for rank, worker, inbox in zip(ranks, workers, inboxes, strict=True)
        ]
        measured = measure_ranks(jobs, plan=plan, driver=driver)
    shown = shown_rank(measured, inboxes)
    return _as_one(measured, shown, inboxes, root=root), inboxes[shown]


def shown_rank(measured: MeasuredRanks, inboxes: Sequence[AnyInbox]) -> int:
    """The rank whose reports become the test's: the first to fail; rank 0 if it failed in the same way, or none failed."""
    if not measured.failed:
        return 0
    first = measured.failed[0]
    return 0 if 0 in measured.failed and _failure(measured, inboxes, 0) == _failure(measured, inboxes, first) else first


def _failure(measured: MeasuredRanks, inboxes: Sequence[AnyInbox], rank: int) -> tuple[str, str | None, str | None]:
    ending, raised = measured.ranks[rank].ending, inboxes[rank].raised
    return ending.kind, ending.signal, raised.line if raised else None


def _as_one(measured: MeasuredRanks, shown: int, inboxes: Sequence[AnyInbox], *, root: str) -> Measured:
    """The shown rank, with what is known of all of them together."""
    one, together = measured.ranks[shown], measured.together
    records = [
        _record(rank, each, inbox, root=root)
        for rank, (each, inbox) in enumerate(zip(measured.ranks, inboxes, strict=True))
    ]
    return dataclasses.replace(
        one,
        ending=dataclasses.replace(one.ending, rank=shown if measured.failed else None),
        peak=together.peak,
        verdicts=together.verdicts,
        timeline=together.timeline
        and dataclasses.replace(together.timeline, marks=one.timeline.marks if one.timeline else ()),
        written_bytes=together.written_bytes,
        notes=together.notes,
        vram=tuple(vram for each in measured.ranks for vram in each.vram),
        ranks=tuple(records),
    )


def _record(rank: int, measured: Measured, inbox: Inbox | TrialInbox, *, root: str) -> RankRecord:
    peak, ending = measured.peak, measured.ending
    raised = inbox.raised if inbox.has_failed else None
    if raised and not ending.died:
        ending = dataclasses.replace(ending, kind="raised")
    return RankRecord(
        rank=rank,
        peak_bytes=peak.peak_bytes if peak else 0,
        peak_resident_bytes=peak.peak_resident_bytes if peak else 0,
        baseline_bytes=peak.baseline_bytes if peak else 0,
        error_bytes=peak.error_bytes if peak else None,
        held_bytes=inbox.loaded.nbytes if inbox.loaded else None,
        ending=dataclasses.replace(ending, error=raised.line if raised else None, place=measured.place),
        stack=tuple(frame.shown(root) for frame in measured.stack.users_first),
        timeline=measured.timeline,
        steps=inbox.steps,
    )


def _take(pool: Pool, files: Sequence[SessionFiles]) -> list[Worker]:
    workers: list[Worker] = []
    try:
        for own in files:
            worker = pool.take()
            worker.files = own
            workers.append(worker)
    except NoWorkerError:
        for worker in workers:
            worker.kill()
            worker.close()
        raise
    return workers


@contextmanager
def _rank_folder(session: Path, count: int) -> Generator[tuple[list[Rank], list[SessionFiles]]]:
    """Files of this test's ranks alone: nothing that earlier ranks have left is found by later ones."""
    folder = Path(tempfile.mkdtemp(prefix="ranks-", dir=session))
    files: list[SessionFiles] = []
    try:
        port = _free_port()
        ranks = [Rank(number=number, count=count, folder=folder, port=port) for number in range(count)]
        for rank in ranks:
            rank.files.mkdir()
            files.append(SessionFiles.create(rank.files))
        yield ranks, files
    finally:
        for own in files:
            own.close()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
