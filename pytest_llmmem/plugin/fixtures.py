"""The fixtures: ``model_checkpoint``, ``loaded_model``, ``memory_budget``."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Self

import pytest

from pytest_llmmem.core.budgets import parse_limit
from pytest_llmmem.core.errors import BudgetExceeded
from pytest_llmmem.plugin.settings import Scope
from pytest_llmmem.plugin.state import MODELS, SETTINGS, VOICE, Loaded

if TYPE_CHECKING:
    from pytest_llmmem.core.readings import Peak
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
    """Run each test that needs a model once for each ``--llm-model``."""
    if "llm_model" in metafunc.fixturenames and (models := metafunc.config.stash[MODELS]) is not None:
        metafunc.parametrize(
            "llm_model",
            models.sources,
            ids=[source.label for source in models.sources],
            indirect=True,
            scope=metafunc.config.stash[SETTINGS].scope,
        )


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
    return models.checkpoint(llm_model)


@pytest.fixture(scope=_model_scope)
def loaded_model(
    model_checkpoint: "Checkpoint", memory_window: "Window", pytestconfig: pytest.Config
) -> "Generator[LoadedModel]":
    """The model, loaded by ``from_pretrained`` in this test's worker; the load is a phase of its own."""
    from pytest_llmmem.models.loaded import load_default

    loaded = load_default(model_checkpoint, lambda: memory_window(None, name="load"))
    if (voice := pytestconfig.stash.get(VOICE, None)) is not None:
        voice.say(Loaded(mapped_bytes=loaded.mapped_after_load_bytes))
    yield loaded
    loaded.release()


Window = Callable[..., Spending]


@pytest.fixture(scope="session")
def memory_window(pytestconfig: pytest.Config) -> Window:
    """The measuring part of ``memory_budget``, for fixtures of any scope."""

    def measure(limit: object = None, *, name: str = "memory_budget") -> Spending:
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
