"""The parts of pytest that we need and that have no public name; tested on pytest 8.2, 8.4, 9.0 and 9.2.

Built-in plugins are addressed through the plugin manager and called by their hooks' public signatures.
"""

import contextlib
from typing import Any

import pytest


def tear_down_in_parent(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Tear down what earlier tests in this process have set up and ``nextitem`` does not need.

    The isolated item itself was never set up here, but pytest's setup state expects that every item in the order is
    torn down before the next one is set up.
    """
    _builtin(item, "runner").pytest_runtest_teardown(item=item, nextitem=nextitem)


def evaluate_xfail(item: pytest.Item) -> None:
    """Let pytest note on the item whether it is marked xfail, as it does at setup; the worker's note died with it."""
    # a skip or an xfail(run=False) raises; the worker would have ended the test so, before it could die
    with contextlib.suppress(pytest.skip.Exception, pytest.xfail.Exception):
        _builtin(item, "skipping").pytest_runtest_setup(item=item)


def make_report(item: pytest.Item, call: "pytest.CallInfo[None]") -> pytest.TestReport:
    """The report that pytest itself makes of a call, xfail included.

    Other plugins are not asked: they may expect traces of a setup that happened in another process.
    """
    manager = item.config.pluginmanager
    own = {manager.get_plugin("runner"), manager.get_plugin("skipping")}
    others = [plugin for plugin in manager.get_plugins() if plugin not in own]
    caller = manager.subset_hook_caller("pytest_runtest_makereport", remove_plugins=others)
    report: pytest.TestReport = caller(item=item, call=call)
    return report


def restore_report(config: pytest.Config, data: dict[str, Any], failed_subtests: int) -> pytest.TestReport:
    """A report as it was in the process that made it, where so many subtests of its test had failed.

    pytest fails a test that passed, and has such (pytest 9). A subtest's parameters are turned into text whenever its
    report is built, so they are put back.
    """
    report: pytest.TestReport = config.hook.pytest_report_from_serializable(config=config, data=data)
    context = data.get("_subtest.context")
    if context and is_of_subtest(report):
        object.__setattr__(report.context, "kwargs", context["kwargs"])  # type: ignore[attr-defined]  # a subtest's
    if failed_subtests and (counts := _failed_subtests(config)) is not None:
        counts[_id_of(report)] = failed_subtests
    return report


def name_rank(report: pytest.TestReport, rank: int) -> None:
    """Have the message of a failure begin with the rank that failed, in pytest's summary and in JUnit."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        crash.message = f"rank {rank}: {crash.message}"
    elif report.failed and isinstance(report.longrepr, str):
        report.longrepr = f"rank {rank}: {report.longrepr}"


def is_of_subtest(report: pytest.TestReport) -> bool:
    """Whether a report is of a subtest, of pytest's own (9.0 and newer) or of pytest-subtests, and not of its test."""
    return hasattr(report, "context")


def failed_subtests(config: pytest.Config, report: pytest.TestReport) -> int:
    """Number of failed subtests that pytest has counted for a test: pytest 9 fails a passed test because of them."""
    return int(counts.get(_id_of(report), 0)) if (counts := _failed_subtests(config)) else 0


def _failed_subtests(config: pytest.Config) -> dict[Any, int] | None:
    key = getattr(config.pluginmanager.get_plugin("subtests"), "failed_subtests_key", None)
    return None if key is None else config.stash.get(key, None)


def _id_of(report: pytest.TestReport) -> Any:
    return getattr(report, "id", report.nodeid)  # pytest 9.2 has a type for it


def make_base_temp(config: pytest.Config) -> None:
    """Make the folder that all ``tmp_path`` are made in, so that workers share it instead of making their own.

    Where it cannot be made, each test that asks for it says so, as without us.
    """
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is not None:
        with contextlib.suppress(OSError):
            factory.getbasetemp()


def silence_log_hooks(config: pytest.Config, ours: object, names: tuple[str, ...]) -> None:
    """Let only one plugin hear the given hooks from now on; the others hear them in the parent."""
    manager = config.pluginmanager
    others = [plugin for plugin in manager.get_plugins() if plugin is not ours]
    for name in names:
        caller = manager.subset_hook_caller(name, remove_plugins=others)
        # the relay, and pytest's path-aware wrapper of it that keeps what it has looked up
        for relay in (manager.hook, config.hook):
            setattr(relay, name, caller)


def _builtin(item: pytest.Item, name: str) -> Any:
    return item.config.pluginmanager.get_plugin(name)
