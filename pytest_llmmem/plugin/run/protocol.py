"""pytest in the parent: gives isolated tests to workers and replays what they report."""

import contextlib
import faulthandler
import os
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Self

import pytest

from pytest_llmmem.plugin.collect.planning import IsolatedTest, plan_item
from pytest_llmmem.plugin.collect.ranks import wants_process_group
from pytest_llmmem.plugin.collect.vram_budgets import spread_workers
from pytest_llmmem.plugin.compat import make_base_temp, make_report, tear_down_in_parent
from pytest_llmmem.plugin.run.pool import open_pool
from pytest_llmmem.plugin.run.same_collection import compare_collections, compare_empty_collection
from pytest_llmmem.plugin.selection import is_marked
from pytest_llmmem.plugin.settings import Settings
from pytest_llmmem.plugin.state import MODELS, TIMEOUT, find_checkpoint
from pytest_llmmem.plugin.worker.messages import Aborted

if TYPE_CHECKING:
    from pytest_llmmem.plugin.run.runner import Runner


def isolate(session: pytest.Session, settings: Settings) -> None:
    """Take over the session's isolated tests. Raises ``LlmmemError`` where that cannot be done."""
    config = session.config
    if settings.isolate == "none":
        from pytest_llmmem.plugin.run.in_process import InProcess

        tests = plan_tests(config, settings, session.items)
        why = settings.why_none or "--llm-isolate=none"
        InProcess(config, tests, why).register()
    else:
        config.pluginmanager.register(Isolation.start(config, settings, session.items), "llmmem-isolation")


def plan_tests(config: pytest.Config, settings: Settings, items: list[pytest.Item]) -> dict[pytest.Item, IsolatedTest]:
    """Plan the tests that are to be measured."""
    models = config.stash.get(MODELS, None)
    find = models.checkpoint_of if models else lambda _: None
    chosen = items if settings.isolate == "all" else filter(is_marked, items)
    return {item: plan_item(item, settings, find) for item in chosen}


class Isolation:
    """The parent's role; registered only when there is something to isolate."""

    def __init__(
        self, settings: Settings, isolated: Mapping[pytest.Item, IsolatedTest], runner: "Runner | None" = None
    ) -> None:
        """``runner`` is ``None`` when no isolated test can run."""
        self._settings, self._isolated, self._runner = settings, isolated, runner

    @classmethod
    def start(cls, config: pytest.Config, settings: Settings, items: list[pytest.Item]) -> Self:
        """Plan the tests, and start what makes workers for them."""
        spread_workers(config, settings, items)
        isolated = plan_tests(config, settings, items)
        make_base_temp(config)
        planned = [item for item, one in isolated.items() if one.plan]
        if not planned:
            compare_empty_collection(os.environ)
            return cls(settings, isolated)
        # architectures that tests will load, by themselves or through ``loaded_model``
        checkpoints = map(find_checkpoint, planned)
        model_types = sorted({checkpoint.model_type or "auto" for checkpoint in checkpoints if checkpoint})
        modules = (*settings.preload, *(("torch",) if any(map(wants_process_group, planned)) else ()))
        pool = open_pool(config, settings, items, jobs=len(planned), modules=modules, model_types=model_types)
        with contextlib.ExitStack() as undo:
            undo.callback(pool.close)
            compare_collections(pool.folder.path, [item.nodeid for item in planned], os.environ)
            # imported while the server of workers gets ready: a third of a second of a session's start
            from pytest_llmmem.plugin.run.runner import Runner

            runner = Runner(config, settings, items, isolated, pool)
            undo.pop_all()
        return cls(settings, isolated, runner)

    def describe(self) -> str:
        """One line: how many tests are isolated, and how."""
        if self._runner is None:
            return "llmmem: no isolated test can run, so no worker is started"
        pool = self._runner.pool
        planned = sum(isolated.plan is not None for isolated in self._isolated.values())
        reason = f" ({pool.reason})" if pool.reason else ""
        malloc = ", malloc steady" if self._settings.malloc == "steady" else ""
        return f"llmmem: {planned} isolated in workers by {pool.kind}{reason}{malloc}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        isolated = self._isolated.get(item)
        if isolated is None:
            return None
        # pytest's faulthandler_timeout would dump, or even end, this process; it is armed in the worker as well
        faulthandler.cancel_dump_traceback_later()
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        aborted = None
        if isolated.plan is None:
            from pytest_llmmem.plugin.report.record import reports_without_run

            reports = reports_without_run(item, isolated)
        else:
            assert self._runner is not None, "there is a plan"
            reports, aborted = self._runner.run(item, nextitem, isolated)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        self._tear_down(item, nextitem)
        if aborted is not None:
            _abort(item.session, aborted)
        return True

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
            if self._runner is not None:
                self._runner.drain()

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> bool | None:
        """pytest-timeout's limit of an isolated test becomes the worker's: enforced from outside."""
        if item not in self._isolated:
            return None
        item.stash[TIMEOUT] = float(settings.timeout)
        return True

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_cancel_timer(self, item: pytest.Item) -> bool | None:
        return True if item in self._isolated else None

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        if self._runner is not None:
            self._runner.close()


def _abort(session: pytest.Session, aborted: Aborted) -> None:
    """Do in this process what the test asked for in its own."""
    match aborted.kind:
        case "exit":
            raise pytest.exit.Exception(aborted.reason, aborted.returncode)
        case "interrupt":
            raise KeyboardInterrupt(aborted.reason)
        case "stop":
            session.shouldstop = aborted.reason
