"""pytest inside a worker: runs one item through its whole protocol and passes on what the hooks hear."""

import contextlib
import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from pytest_llmmem import probes
from pytest_llmmem.core.launch import rank_of
from pytest_llmmem.measuring.connection import using
from pytest_llmmem.models.loading.load_tracing import follow_load, imported_libraries
from pytest_llmmem.plugin.collect.steps import runs_steps
from pytest_llmmem.plugin.compat import failed_subtests, silence_log_hooks
from pytest_llmmem.plugin.state import RANK, SESSION_FILES, TRIALS
from pytest_llmmem.plugin.worker.allocator import Allocator
from pytest_llmmem.plugin.worker.import_costs import import_costs
from pytest_llmmem.plugin.worker.load_errors import without_libraries
from pytest_llmmem.plugin.worker.messages import Aborted, ItemKey, Job, Raised, Reported, Trial, Warned, text_of
from pytest_llmmem.plugin.worker.phases import Phases
from pytest_llmmem.plugin.worker.ranks import enter_rank, own_output
from pytest_llmmem.plugin.worker.repeated_calls import RepeatedCalls
from pytest_llmmem.plugin.worker.torchrun import keep_groups_apart
from pytest_llmmem.plugin.worker.trial import try_load
from pytest_llmmem.probes import torch_memory
from pytest_llmmem.probes.host import Mappings
from pytest_llmmem.workers import child
from pytest_llmmem.workers.channel import Channel
from pytest_llmmem.workers.child import ParentConnection
from pytest_llmmem.workers.session_files import SessionFiles


def item_keys(items: Iterable[pytest.Item]) -> dict[ItemKey, pytest.Item]:
    """Items by node id and occurrence: the same in the parent and in a worker that has collected by itself."""
    seen: defaultdict[str, int] = defaultdict(int)
    keys = {}
    for item in items:
        keys[item.nodeid, seen[item.nodeid]] = item
        seen[item.nodeid] += 1
    return keys


_DEEPEST: Final = 100
"""Levels of containers in a report; one that has more is given by its ``repr``."""

LOG_HOOKS: Final = (
    "pytest_runtest_logstart",
    "pytest_runtest_logreport",
    "pytest_runtest_logfinish",
    "pytest_warning_recorded",
)
"""Hooks with which pytest reports a test. A worker sends these calls to its parent, and the parent calls the hooks."""


@dataclass(slots=True)
class WorkerMain:
    """The body of a worker: settled once where workers come from, called once in each."""

    config: pytest.Config
    items: dict[ItemKey, pytest.Item]
    malloc: str
    files: SessionFiles
    _relay: "ReportRelay | None" = None
    _phases: Phases = field(default_factory=Phases)
    _mappings: Mappings | None = None
    _allocator: Allocator = field(default_factory=Allocator)
    _followed: frozenset[str] = frozenset()
    """Libraries whose loads are followed."""
    _following: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """Never left: this process runs nothing but tests."""

    def settle(self) -> None:
        """Take over the hooks, in a process that will never report by itself."""
        relay = self._relay = ReportRelay(self.config)
        manager = self.config.pluginmanager
        manager.unregister(name="llmmem-isolation")
        manager.register(relay, "llmmem-relay")
        manager.register(self._phases, "llmmem-phases")
        manager.register(self._allocator, "llmmem-allocator")
        manager.register(RepeatedCalls(), "llmmem-repeated-calls")
        if self.config.getoption("capture") == "fd":
            manager.register(OutputFiles(relay), "llmmem-output")
        silence_log_hooks(self.config, relay, LOG_HOOKS)
        # what replaces functions of libraries does so here, once: each worker would copy 230 pages for it
        self._follow_loads()
        torch_memory.read()
        self._mappings = probes.mappings()

    def __call__(self, channel: Channel) -> None:
        """Serve the channel until the last job, then write what only a normal exit would have written."""
        assert self._mappings is not None, "settled before the first job"
        child.serve(channel, self.files.stacks, self._run, malloc=self.malloc, mappings=self._mappings)
        _save_coverage()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()

    def _run(self, job: Job | Trial, connection: ParentConnection) -> None:
        with using(connection):
            self._run_measured(job, connection)

    def _run_measured(self, job: Job | Trial, connection: ParentConnection) -> None:
        assert self._relay is not None, "settled before the first job"
        self._relay.connection = connection
        self.config.stash[SESSION_FILES] = self.files
        item = self.items[job.item]
        if job.rank is not None:
            self.config.stash[RANK] = job.rank
            self.config.stash[SESSION_FILES] = enter_rank(job.rank, self.files)
        elif isinstance(job, Job) and rank_of(os.environ) is not None:
            keep_groups_apart(job.number)
        if isinstance(job, Trial):
            try_load(item, job.load, connection)
            return
        if runs_steps(item):
            child.steady_malloc()  # before the load: what glibc keeps of it would be used again, and not counted
        self.config.stash[TRIALS] = job.trials
        self._allocator.begin(job.caps, job.vram_history)
        self._phases.begin(connection)
        self._follow_loads()
        nextitem = self.items[job.following] if job.following else None
        try:
            with import_costs(connection.send):
                item.ihook.pytest_runtest_protocol(item=item, nextitem=nextitem)
        except pytest.exit.Exception as error:
            connection.send(Aborted("exit", str(error.msg), error.returncode))
        except KeyboardInterrupt as error:
            connection.send(Aborted("interrupt", str(error)))
        for reason in (item.session.shouldstop, item.session.shouldfail):
            if reason:
                connection.send(Aborted("stop", str(reason)))
        self.files.place.write("", "")
        self._phases.end()
        self._allocator.end()

    def _follow_loads(self) -> None:
        """Have the reads of a test noted, and those by libraries that an earlier test of this worker has imported."""
        if (libraries := imported_libraries()) != self._followed:
            self._followed = libraries
            self._following.enter_context(follow_load(self.files.place.write, mapped="left"))


class ReportRelay:
    """Passes on to the parent what pytest's hooks hear of a test."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._connection: ParentConnection | None = None

    @property
    def connection(self) -> ParentConnection:
        assert self._connection is not None, "a test runs, so there is a job"
        return self._connection

    @connection.setter
    def connection(self, connection: ParentConnection) -> None:
        self._connection = connection

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: "pytest.CallInfo[None]") -> Generator[None, pytest.TestReport, Any]:
        raised = Raised.of(call.excinfo.value) if call.excinfo else None
        if call.excinfo is not None:
            call.excinfo = without_libraries(call.excinfo, self._config)
        report = yield
        if raised is not None and (report.failed or report.skipped):
            self.connection.send(raised)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self.connection.send(Reported(plain(data), failed_subtests(self._config, report)))

    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        if self._connection is None:
            return  # the hook is historic: at registration it tells again what the session has reported already
        self._connection.send(Warned.of(warning_message, when, nodeid, location))

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_set_timer(self) -> bool:
        """pytest-timeout's limit is kept from outside, where no held GIL can stop it."""
        return True

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_cancel_timer(self) -> bool:
        return True


class OutputFiles:
    """Passes on the files of captured output, once, from within capture's own wrapper around setup."""

    def __init__(self, relay: ReportRelay) -> None:
        self._relay = relay
        self._shown = False

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if not self._shown:
            self._shown = True
            if RANK in item.config.stash:
                own_output()
            self._relay.connection.show_output()


def plain(value: Any, around: tuple[int, ...] = ()) -> Any:
    """The same data with ``repr`` in place of what other plugins have attached and cannot leave the process.

    ``around`` are the containers that it is in, by identity.
    """
    if value is None or type(value) in {bool, int, float, str, bytes}:
        return value
    if isinstance(value, str):
        return text_of(value)
    inside = (*around, id(value))
    if id(value) not in around and len(around) < _DEEPEST:
        if isinstance(value, dict):
            return {plain(key, inside): plain(item, inside) for key, item in value.items()}
        if type(value) in {list, tuple}:
            return type(value)(plain(item, inside) for item in value)
    return text_of(value, repr)


def _save_coverage() -> None:
    """Write what coverage has recorded here: the process ends without the exit handlers that would."""
    coverage: Any = sys.modules.get("coverage")
    if coverage is not None and (current := coverage.Coverage.current()) is not None:
        current.stop()
        current.save()
