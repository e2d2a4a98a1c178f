"""The model of a test: loaded as the test wants it, and reported to the parent."""

import contextlib
import os
from collections.abc import Generator, Sequence
from importlib.metadata import version

import pytest

from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.core.record_parts import TrialRecord
from pytest_llmmem.measuring.blocks import memory_budget
from pytest_llmmem.measuring.connection import current
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.loading.ineffective_arguments import noop_arguments
from pytest_llmmem.models.loading.loaded import LoadedModel
from pytest_llmmem.models.loading.request import installed
from pytest_llmmem.plugin.collect.loads import Load
from pytest_llmmem.plugin.worker.load import load, scratch_folder
from pytest_llmmem.plugin.worker.messages import AtEnd
from pytest_llmmem.plugin.worker.trial import loaded_message


def load_for_test(checkpoint: Checkpoint, chosen: Load, config: pytest.Config) -> Generator[LoadedModel]:
    """Load, give the model to the test, and let it go."""
    __tracebackhide__ = True
    connection = current()
    with scratch_folder(config) as folder:
        with failing_plainly():
            loaded = load(config, checkpoint, chosen, lambda: memory_budget(None, name="load"), folder)
        if connection is not None:
            connection.send(loaded_message(loaded, _hints(loaded)))
        yield loaded
        if connection is not None:
            connection.send(AtEnd(loaded.mapped_nbytes, loaded.tie_faults))
        loaded.release()


def _hints(loaded: LoadedModel) -> tuple[str, ...]:
    """Arguments that do nothing; a loader of the user's own may do without transformers."""
    if not installed("transformers"):
        return ()
    return noop_arguments(loaded.passed, os.environ, transformers=version("transformers"))


def first_fitting(trials: Sequence[TrialRecord]) -> Load:
    """The load that fits: the last one that was tried. Without one, the test does not run."""
    return Load(trials[-1].load)


@contextlib.contextmanager
def failing_plainly() -> Generator[None]:
    """An error of ours is a sentence that needs no traceback."""
    try:
        yield
    except LlmmemError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
