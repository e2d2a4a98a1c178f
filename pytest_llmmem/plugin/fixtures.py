"""The fixtures: ``model_checkpoint``, ``loaded_model``, ``memory_budget``."""

import os
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmmem.plugin.options import value_of
from pytest_llmmem.plugin.state import MODELS, RANK, TRIALS

if TYPE_CHECKING:
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
    from pytest_llmmem.models.loading.loaded import LoadedModel
    from pytest_llmmem.models.sources.source import Source
    from pytest_llmmem.plugin.budget_blocks import MemoryBudget
    from pytest_llmmem.plugin.collect.loads import Load
    from pytest_llmmem.plugin.settings import Scope


def _model_scope(fixture_name: str, config: pytest.Config) -> "Scope":  # noqa: ARG001 -- pytest's signature
    scope: Scope = value_of(config, "scope")
    return scope


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
    from pytest_llmmem.plugin.worker.loading import failing_plainly

    with failing_plainly():
        return pytestconfig.stash[MODELS].checkpoint(llm_model)


@pytest.fixture(scope="session")
def llm_load(request: pytest.FixtureRequest) -> "Load":
    """How the model of this test is loaded: by ``llm_load``, ``--llm-load``, or ``default``."""
    from pytest_llmmem.plugin.collect.loads import Load

    chosen: Load = getattr(request, "param", Load())
    return chosen


@pytest.fixture(scope=_model_scope)
def loaded_model(
    model_checkpoint: "Checkpoint", llm_load: "Load", memory_window: "Window", pytestconfig: pytest.Config
) -> "Generator[LoadedModel]":
    """The model, loaded in this test's worker; the load is a phase of its own."""
    __tracebackhide__ = True
    from pytest_llmmem.plugin.worker.loading import load_for_test

    yield from load_for_test(model_checkpoint, llm_load, memory_window, pytestconfig)


@pytest.fixture
def first_load_that_fits(
    model_checkpoint: "Checkpoint", memory_window: "Window", pytestconfig: pytest.Config
) -> "Generator[LoadedModel]":
    """The model, loaded by the first strategy that stays within the test's max_ram.

    Each was tried in a worker of its own before the test; those of ``--llm-load``, or all that are offered. Fails
    with the table when none fits.
    """
    __tracebackhide__ = True
    from pytest_llmmem.plugin.worker.loading import first_fitting, load_for_test

    trials = pytestconfig.stash.get(TRIALS, None)
    if trials is None:
        pytest.skip("first_load_that_fits tries loads in workers, and nothing is isolated here")
    yield from load_for_test(model_checkpoint, first_fitting(trials), memory_window, pytestconfig)


@pytest.fixture(scope="session")
def rank(pytestconfig: pytest.Config) -> int:
    """The number of this process among the ranks of the test, from 0; 0 where there is only one.

    In a session that ``torchrun`` has started, the rank of the session.
    """
    from pytest_llmmem.core.launch import rank_of

    own = pytestconfig.stash.get(RANK, None)
    return own.number if own else rank_of(os.environ) or 0


@pytest.fixture
def process_group(pytestconfig: pytest.Config) -> Any:
    """The default process group of torch over the ranks of the test: nccl where each rank has a GPU, else gloo."""
    from pytest_llmmem.core.launch import rank_of

    own = pytestconfig.stash.get(RANK, None)
    if own is None and rank_of(os.environ) is None:
        pytest.skip("process_group needs ranks: mark the test with in_worker(ranks=2), or pass --llm-ranks=2")
    from pytest_llmmem.plugin.worker.ranks import join_process_group

    return join_process_group(own)


Window = Callable[..., "MemoryBudget"]


@pytest.fixture(scope="session")
def memory_window(pytestconfig: pytest.Config) -> Window:
    """The measuring part of ``memory_budget``, for fixtures of any scope."""
    from pytest_llmmem.plugin.budget_blocks import MemoryBudget

    def measure(limit: object = None, *, name: str = "memory_budget") -> MemoryBudget:
        __tracebackhide__ = True
        return MemoryBudget(pytestconfig, name, limit)

    return measure


@pytest.fixture
def memory_budget(memory_window: Window) -> Window:
    """Give a block a budget of its own.

        with memory_budget("300MB", name="generate") as spent:
            model.generate(...)

    ``limit`` is what ``max_ram`` takes, or ``None`` to measure only; ``spent.peak`` is known after the block. The
    block is a phase of its own in the report.
    """
    return memory_window
