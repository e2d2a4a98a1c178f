"""The entry point that pytest imports: hooks that cost nothing while there is nothing to isolate.

Whatever starts processes, measures, or reads checkpoints is imported when the first isolated test is collected.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.plugin import hookspecs
from pytest_llmmem.plugin.fixtures import (
    first_load_that_fits,
    llm_load,
    llm_model,
    loaded_model,
    memory_budget,
    memory_window,
    model_checkpoint,
    pytest_generate_tests,
)
from pytest_llmmem.plugin.importing import note_path
from pytest_llmmem.plugin.loads import check_load_settings
from pytest_llmmem.plugin.markers import MARKERS
from pytest_llmmem.plugin.reporting import Reporting
from pytest_llmmem.plugin.selection import is_isolated
from pytest_llmmem.plugin.settings import add_options, resolve_settings
from pytest_llmmem.plugin.state import MODELS, SETTINGS

__all__ = [
    "first_load_that_fits",
    "llm_load",
    "llm_model",
    "loaded_model",
    "memory_budget",
    "memory_window",
    "model_checkpoint",
    "pytest_generate_tests",
]


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    note_path(config)
    for marker in MARKERS:
        config.addinivalue_line("markers", marker.help_line())
    with _as_usage_error():
        settings = config.stash[SETTINGS] = resolve_settings(config)
        config.stash[MODELS] = None
        check_load_settings(config)
        if settings.model:
            from pytest_llmmem.plugin.models import Models

            config.stash[MODELS] = Models.of(settings, Path(config.invocation_params.dir))
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Reporting(settings), "llmmem-reporting")
    if "PYTEST_LLMMEM_WORKER" in os.environ:
        from pytest_llmmem.plugin.spawned import SpawnedRole

        config.pluginmanager.register(SpawnedRole(config), "llmmem-spawned")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Fetch or make every model once, before any test: one error, not one per test."""
    models = session.config.stash[MODELS]
    if models is not None and not session.config.option.collectonly:
        with _as_usage_error():
            models.fetch()


def pytest_report_header(config: pytest.Config) -> str | None:
    settings = config.stash[SETTINGS]
    if settings.isolate == "none":
        return f"llmmem: nothing is isolated, measured or judged ({settings.why_none or '--llm-isolate=none'})"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Fork what forks the workers now: collected, and nothing has run yet."""
    config = session.config
    settings = config.stash[SETTINGS]
    spawned = config.pluginmanager.has_plugin("llmmem-spawned")
    if settings.isolate == "none" or config.option.collectonly or spawned or not session.items:
        return
    if any(is_isolated(item, settings) for item in session.items):
        from pytest_llmmem.plugin.isolation import Isolation

        with _as_usage_error():
            isolation = Isolation(config, settings, session.items)
        config.pluginmanager.register(isolation, "llmmem-isolation")


def pytest_report_collectionfinish(config: pytest.Config) -> str | None:
    isolation: Any = config.pluginmanager.get_plugin("llmmem-isolation")
    return isolation.describe() if isolation else None


class _as_usage_error:  # noqa: N801 -- used as a function is, in ``with``
    """Turn an error of ours into pytest's for wrong usage: one line, exit code 4."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, LlmmemError):
            raise pytest.UsageError(str(error)) from None
