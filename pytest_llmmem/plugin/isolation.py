"""pytest in the parent: gives isolated tests to workers and replays what they report."""

import builtins
import contextlib
import dataclasses
import faulthandler
import warnings
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.core.records import ModelRecord
from pytest_llmmem.engine import LoadPlan, measure
from pytest_llmmem.models.checkpoint import Checkpoint
from pytest_llmmem.plugin import bridge
from pytest_llmmem.plugin.compat import make_base_temp, make_report, tear_down_in_parent
from pytest_llmmem.plugin.inside import Aborted, ItemKey, Job, Reported, Warned, item_keys
from pytest_llmmem.plugin.planning import Isolated, plan_item
from pytest_llmmem.plugin.pool import Pool, open_pool
from pytest_llmmem.plugin.progress import Progress
from pytest_llmmem.plugin.selection import is_isolated
from pytest_llmmem.plugin.settings import Settings
from pytest_llmmem.plugin.state import MODELS, Loaded
from pytest_llmmem.workers.handle import Worker

TIMEOUT: Final = pytest.StashKey[float]()
"""The limit that pytest-timeout has worked out for an item."""


class Isolation:
    """The parent's role; registered only when there is something to isolate."""

    def __init__(self, config: pytest.Config, settings: Settings, items: list[pytest.Item]) -> None:
        self._config = config
        self._settings = settings
        models = config.stash[MODELS]
        find = models.checkpoint_of if models else lambda _: None
        self._find_checkpoint = find
        self._keys: dict[pytest.Item, ItemKey] = {item: key for key, item in item_keys(items).items()}
        self.isolated = {item: plan_item(item, settings, find) for item in items if is_isolated(item, settings)}
        self._group: Worker | None = None
        """The worker that the next test of the same group goes on in."""
        make_base_temp(config)
        self._pool: Pool = open_pool(
            config, settings, items, jobs=len(self.isolated), model_types=sorted(self._model_types())
        )

    def _model_types(self) -> set[str]:
        """Architectures that isolated tests will load, by themselves or through ``loaded_model``."""
        checkpoints = [self._find(item) for item in self.isolated]
        return {checkpoint.model_type or "auto" for checkpoint in checkpoints if checkpoint}

    def describe(self) -> str:
        """One line: how many tests are isolated, and how."""
        reason = f" ({self._pool.reason})" if self._pool.reason else ""
        malloc = ", malloc steady" if self._settings.malloc == "steady" else ""
        return f"llmmem: {len(self.isolated)} isolated in workers by {self._pool.kind}{reason}{malloc}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        isolated = self.isolated.get(item)
        if isolated is None:
            return None
        # pytest's faulthandler_timeout would dump, or even end, this process; it is armed in the worker as well
        faulthandler.cancel_dump_traceback_later()
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        aborted = None
        if isolated.plan is None:
            reports = bridge.complaint_reports(item, isolated.complaint)
        else:
            reports, aborted = self._run(item, nextitem, isolated)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        self._tear_down(item, nextitem)
        if aborted is not None:
            _abort(item.session, aborted)
        return True

    def _run(
        self, item: pytest.Item, nextitem: pytest.Item | None, isolated: Isolated
    ) -> tuple[list[pytest.TestReport], Aborted | None]:
        goes_on = isolated.group is not None and self._group_of(nextitem) == isolated.group
        worker, self._group = self._group, None
        if worker is None:
            with contextlib.suppress(EOFError, OSError):
                worker = self._pool.source.take()
        if worker is None:
            return bridge.complaint_reports(item, f"no worker could be made: {self._startup()}"), None
        hearing = _Hearing(item, Progress.of(self._config, item, self._find))
        job = Job(self._keys[item], self._keys[nextitem] if goes_on and nextitem else None)
        if nextitem is not None and not goes_on:
            self._pool.source.prepare()
        try:
            measured = measure(worker, job, last=not goes_on, plan=self._plan(item, isolated), listener=hearing)
        finally:
            hearing.progress_line.erase()
        if goes_on and not worker.doomed and worker.exit is None:
            self._group = worker
        elif goes_on:
            # its stop came too late for this test, and must not reach the next one
            worker.kill()
            worker.close()
        reports, ending = bridge.complete_reports(item, hearing.reports(), measured)
        record = bridge.record_of(item, reports, measured, ending, self._model_record(item, hearing))
        bridge.attach(reports, record)
        return reports, hearing.aborted

    def _plan(self, item: pytest.Item, isolated: Isolated) -> LoadPlan:
        assert isolated.plan is not None, "only planned tests run"
        timeout_s = isolated.plan.timeout_s or item.stash.get(TIMEOUT, None)
        return dataclasses.replace(isolated.plan, timeout_s=timeout_s)

    def _group_of(self, item: pytest.Item | None) -> str | None:
        isolated = self.isolated.get(item) if item is not None else None
        return isolated.group if isolated else None

    def _find(self, item: pytest.Item) -> Checkpoint | None:
        try:
            return self._find_checkpoint(item)
        except LlmmemError:
            return None  # the fixture raises it, inside the test

    def _model_record(self, item: pytest.Item, hearing: "_Hearing") -> ModelRecord | None:
        checkpoint = self._find(item)
        if checkpoint is None:
            return None
        return ModelRecord(
            source=checkpoint.source,
            load="default",
            weights_bytes=checkpoint.weights_bytes,
            largest_shard_bytes=checkpoint.largest_shard_bytes,
            parameters=checkpoint.parameters,
            mapped_bytes=hearing.mapped_bytes,
        )

    def _startup(self) -> str:
        output = getattr(self._pool.source, "startup_output", None)
        if output is None:
            return "the process that makes them is gone"
        output.seek(0)
        tail: str = output.read()[-2000:].decode(errors="replace")
        return f"pytest ended before it was ready:\n{tail}"

    def _tear_down(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        call = pytest.CallInfo.from_call(
            lambda: tear_down_in_parent(item, nextitem), "teardown", reraise=(pytest.exit.Exception, KeyboardInterrupt)
        )
        if call.excinfo is not None:
            item.ihook.pytest_runtest_logreport(report=make_report(item, call))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Innermost, so that every worker has left before another plugin gathers what they wrote (coverage)."""
        try:
            return (yield)
        finally:
            self._pool.source.drain()

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> bool | None:
        """pytest-timeout's limit of an isolated test becomes the worker's: enforced from outside."""
        if item not in self.isolated:
            return None
        item.stash[TIMEOUT] = float(settings.timeout)
        return True

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_cancel_timer(self, item: pytest.Item) -> bool | None:
        return True if item in self.isolated else None

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        if self._group is not None:
            self._group.kill()
            self._group.close()
        self._pool.close()


@dataclass(slots=True)
class _Hearing:
    """What a worker says while it runs one item."""

    item: pytest.Item
    progress_line: Progress
    aborted: Aborted | None = None
    mapped_bytes: int | None = None
    _data: list[dict[str, Any]] = field(default_factory=list)

    def said(self, what: Any) -> None:
        match what:
            case Reported(data):
                self._data.append(data)
            case Warned():
                self._warn(what)
            case Aborted():
                self.aborted = what
            case Loaded(mapped_bytes):
                self.mapped_bytes = mapped_bytes

    def progress(self, pid: int, seconds: float, reading: Reading, growth_bytes: int) -> None:
        self.progress_line.update(pid, seconds, growth_bytes + reading.file_bytes)

    def reports(self) -> list[pytest.TestReport]:
        config = self.item.config
        return [config.hook.pytest_report_from_serializable(config=config, data=data) for data in self._data]

    def _warn(self, warned: Warned) -> None:
        category = getattr(builtins, warned.category, None) or type(warned.category, (Warning,), {})
        message = warnings.WarningMessage(category(warned.text), category, warned.filename, warned.lineno)
        self.item.ihook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": message,
                "nodeid": warned.nodeid,
                "when": warned.when,
                "location": warned.location,
            }
        )


def _abort(session: pytest.Session, aborted: Aborted) -> None:
    """Do in this process what the test asked for in its own."""
    match aborted.kind:
        case "exit":
            raise pytest.exit.Exception(aborted.reason, aborted.returncode)
        case "interrupt":
            raise KeyboardInterrupt(aborted.reason)
        case "stop":
            session.shouldstop = aborted.reason
