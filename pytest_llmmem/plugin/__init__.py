"""The entry point that pytest imports: hooks that cost nothing while there is nothing to isolate.

Whatever starts processes, measures, parses settings or reads checkpoints is imported when a test or an option asks for it.
"""

import os
from typing import Any

import pytest

from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.plugin.fixtures import (
    first_load_that_fits,
    generate_step,
    llm_load,
    llm_model,
    loaded_model,
    memory_budget,
    memory_growth,
    model_checkpoint,
    predicted_step,
    process_group,
    rank,
    train_step,
    training_memory,
)
from pytest_llmmem.plugin.options import MARKERS, add_options, is_any_given, value_of
from pytest_llmmem.plugin.selection import is_marked
from pytest_llmmem.plugin.state import MODELS, settings_of

__all__ = [
    "first_load_that_fits",
    "generate_step",
    "llm_load",
    "llm_model",
    "loaded_model",
    "memory_budget",
    "memory_growth",
    "model_checkpoint",
    "predicted_step",
    "process_group",
    "rank",
    "train_step",
    "training_memory",
]


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_llmmem.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS.values():
        config.addinivalue_line("markers", line)
    if is_any_given(config):
        from pytest_llmmem.plugin.collect.loads import check_load_settings

        with _as_usage_error():
            settings = settings_of(config)
            check_load_settings(config)
            if settings.model:
                from pytest_llmmem.plugin.collect.models import Models

                config.stash[MODELS] = Models.of(settings, config.invocation_params.dir)
    if hasattr(config, "workerinput"):
        from pytest_llmmem.plugin.run.importable_classes import note_path

        note_path(config)
    else:
        from pytest_llmmem.plugin.report.session import Reporting

        config.pluginmanager.register(Reporting(config), "llmmem-reporting")
    if "PYTEST_LLMMEM_WORKER" in os.environ:
        from pytest_llmmem.plugin.worker.spawned import SpawnedRole

        config.pluginmanager.register(SpawnedRole(config), "llmmem-spawned")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Fetch or make every model once, before any test: one error, not one per test."""
    models = session.config.stash.get(MODELS, None)
    if models is not None and not session.config.option.collectonly:
        with _as_usage_error():
            models.fetch()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that needs a model once for each ``--llm-model``, and once for each way to load it."""
    if "llm_model" in metafunc.fixturenames and MODELS in metafunc.config.stash:
        from pytest_llmmem.plugin.collect.models import parametrize

        parametrize(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Fork what forks the workers now: collected, and nothing has run yet."""
    config = session.config
    spawned = config.pluginmanager.has_plugin("llmmem-spawned")
    if config.option.collectonly or spawned or not session.items:
        return
    with _as_usage_error():
        if value_of(config, "isolate") == "all" or any(map(is_marked, session.items)):
            from pytest_llmmem.plugin.run.protocol import isolate

            isolate(session, settings_of(config))
        elif "TORCHELASTIC_RUN_ID" in os.environ:
            from pytest_llmmem.plugin.run.same_collection import compare_empty_collection

            compare_empty_collection(os.environ)


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
