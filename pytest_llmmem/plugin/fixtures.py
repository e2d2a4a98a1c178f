"""The fixtures: ``model_checkpoint``, ``loaded_model``, ``memory_budget``."""

import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Self

import pytest

from pytest_llmmem.core.budgets import parse_limit
from pytest_llmmem.core.errors import BudgetExceeded, LlmmemError
from pytest_llmmem.plugin.loads import Load, load, loads_of, scratch_folder
from pytest_llmmem.plugin.settings import Scope
from pytest_llmmem.plugin.state import MODELS, SETTINGS, TRIALS, VOICE

if TYPE_CHECKING:
    from pytest_llmmem.core.readings import Peak
    from pytest_llmmem.core.records import TrialRecord
    from pytest_llmmem.models.checkpoint import Checkpoint
    from pytest_llmmem.models.loaded import LoadedModel
    from pytest_llmmem.models.sources import Source
    from pytest_llmmem.plugin.models import Models
    from pytest_llmmem.workers.child import Voice


class Spending:
    """A ``memory_budget`` block: what it may use, and, once it has ended, what it has used.

    ``peak`` is ``None`` until then, and where nothing is measured (``--llm-isolate=none``).
    """

    def __init__(self, voice: "Voice | None", name: str, limit: object) -> None:
        __tracebackhide__ = True
        try:
            self._limit = None if limit is None else parse_limit(limit)
        except ValueError as error:
            msg = f"memory_budget {name!r}: {error}"
            raise ValueError(msg) from None
        self._voice = voice
        self.name = name
        self.peak: Peak | None = None
        self.limit_bytes: int | None = None

    @property
    def peak_bytes(self) -> int | None:
        """Unreclaimable growth of the block, in bytes."""
        return self.peak.peak_bytes if self.peak else None

    def __enter__(self) -> Self:
        __tracebackhide__ = True
        if self._voice is not None:
            self._voice.open(self.name, self._limit)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        __tracebackhide__ = True
        if self._voice is None:
            return
        spent = self._voice.close()
        self.peak, self.limit_bytes = spent.peak, spent.limit_bytes
        if spent.breach and error is None:
            raise BudgetExceeded(spent.breach)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that needs a model once for each ``--llm-model``, and once for each way to load it."""
    models = metafunc.config.stash[MODELS]
    if "llm_model" not in metafunc.fixturenames or models is None:
        return
    scope = metafunc.config.stash[SETTINGS].scope
    ids = [source.label for source in models.sources]
    metafunc.parametrize("llm_model", models.sources, ids=ids, indirect=True, scope=scope)
    if "llm_load" in metafunc.fixturenames and (loads := loads_of(metafunc.definition)):
        ids = [load.strategy for load in loads]
        metafunc.parametrize("llm_load", loads, ids=ids, indirect=True, scope=scope)


def _model_scope(fixture_name: str, config: pytest.Config) -> Scope:  # noqa: ARG001 -- pytest's signature
    return config.stash[SETTINGS].scope


@pytest.fixture(scope="session")
def llm_model(request: pytest.FixtureRequest) -> "Source":
    """The model source that this test is parametrised with."""
    if not hasattr(request, "param"):
        pytest.skip("needs a model: pass --llm-model=SOURCE, or set llm_model in the ini file")
    source: Source = request.param
    return source


@pytest.fixture(scope="session")
def model_checkpoint(llm_model: "Source", pytestconfig: pytest.Config) -> "Checkpoint":
    """What the checkpoint's headers say, without loading it: parameters, bytes by dtype, shards, what is wrong."""
    models: Models | None = pytestconfig.stash[MODELS]
    assert models is not None, "a test with a source has models"
    with _failing_plainly():
        return models.checkpoint(llm_model)


@pytest.fixture(scope="session")
def llm_load(request: pytest.FixtureRequest) -> Load:
    """How the model of this test is loaded: by ``llm_load``, ``--llm-load``, or ``default``."""
    chosen: Load = getattr(request, "param", Load())
    return chosen


@pytest.fixture(scope=_model_scope)
def loaded_model(
    model_checkpoint: "Checkpoint", llm_load: Load, memory_window: "Window", pytestconfig: pytest.Config
) -> "Generator[LoadedModel]":
    """The model, loaded in this test's worker; the load is a phase of its own."""
    __tracebackhide__ = True
    yield from _load(model_checkpoint, llm_load, memory_window, pytestconfig)


@pytest.fixture
def first_load_that_fits(
    model_checkpoint: "Checkpoint", memory_window: "Window", pytestconfig: pytest.Config
) -> "Generator[LoadedModel]":
    """The model, loaded by the first strategy that stays within the test's max_ram.

    Each was tried in a worker of its own before the test; those of ``--llm-load``, or all that are offered. Fails
    with the table when none fits.
    """
    __tracebackhide__ = True
    trials = pytestconfig.stash.get(TRIALS, None)
    if trials is None:
        pytest.skip("first_load_that_fits tries loads in workers, and nothing is isolated here")
    yield from _load(model_checkpoint, Load(_fitting(trials)), memory_window, pytestconfig)


def _fitting(trials: "Sequence[TrialRecord]") -> str:
    """The name of the first load that fits."""
    for trial in trials:
        if trial.fits:
            return trial.load
    from pytest_llmmem.reports.terminal import trial_table

    pytest.fail("\n".join(("no load fits:", *trial_table(trials))), pytrace=False)


def _load(
    checkpoint: "Checkpoint", chosen: Load, memory_window: "Window", config: pytest.Config
) -> "Generator[LoadedModel]":
    from pytest_llmmem.plugin.said import StillMapped
    from pytest_llmmem.plugin.trials import loaded_message

    voice = config.stash.get(VOICE, None)
    __tracebackhide__ = True
    with scratch_folder(config) as folder:
        with _failing_plainly():
            loaded = load(config, checkpoint, chosen, lambda: memory_window(None, name="load"), folder)
        if voice is not None:
            voice.say(loaded_message(loaded, _hints(loaded)))
        yield loaded
        if voice is not None:
            voice.say(StillMapped(loaded.mapped_nbytes))
        loaded.release()


@contextlib.contextmanager
def _failing_plainly() -> Generator[None]:
    """An error of ours is a sentence that needs no traceback."""
    try:
        yield
    except LlmmemError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def _hints(loaded: "LoadedModel") -> tuple[str, ...]:
    """Arguments of the load that do nothing in the installed transformers."""
    from importlib.metadata import version

    from pytest_llmmem.models.arguments import noop_arguments

    return noop_arguments(loaded.passed, os.environ, transformers=version("transformers"))


Window = Callable[..., Spending]


@pytest.fixture(scope="session")
def memory_window(pytestconfig: pytest.Config) -> Window:
    """The measuring part of ``memory_budget``, for fixtures of any scope."""

    def measure(limit: object = None, *, name: str = "memory_budget") -> Spending:
        __tracebackhide__ = True
        return Spending(pytestconfig.stash.get(VOICE, None), name, limit)

    return measure


@pytest.fixture
def memory_budget(memory_window: Window) -> Window:
    """Give a block a budget of its own.

        with memory_budget("300MB", name="generate") as spent:
            model.generate(...)

    ``limit`` is what ``max_ram`` takes, or ``None`` to measure only; ``spent.peak`` is known after the block. The
    block is a phase of its own in the report. Outside a worker nothing is measured or judged.
    """
    return memory_window
