"""The role of a pytest that was started as a worker: it collects as its parent did, then serves it."""

import os

import pytest

from pytest_llmmem.plugin.state import settings_of
from pytest_llmmem.plugin.worker.imports import import_ahead
from pytest_llmmem.plugin.worker.main import WorkerMain, item_keys
from pytest_llmmem.workers.spawned import spawn_arguments


class SpawnedRole:
    """Takes the place of pytest's own loop over the tests."""

    def __init__(self, config: pytest.Config) -> None:
        self._arguments = spawn_arguments()
        self._config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        given = self._arguments
        assert given is not None, "this role is only taken when the environment says so"
        if self._config.getoption("capture") == "no":
            for ours, theirs in zip((1, 2), given.streams, strict=True):
                os.dup2(theirs, ours)
        import_ahead(given.preload, given.model_types)
        malloc = settings_of(self._config).malloc
        inside = WorkerMain(self._config, item_keys(session.items), malloc, given.files)
        inside.settle()
        inside(given.channel)
        # the parent reports; a normal exit would write junit files, caches and summaries a second time
        os._exit(0)
