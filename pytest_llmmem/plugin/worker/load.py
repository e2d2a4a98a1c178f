"""Loads the model of a test, in the process that the test runs in, and says how far a load came that failed."""

import contextlib
import importlib
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmmem.core.load_position import describe_position
from pytest_llmmem.plugin.collect.loads import Load, strategy_of
from pytest_llmmem.plugin.state import RANK, SESSION_FILES, settings_of
from pytest_llmmem.plugin.worker.ranks import join_process_group

if TYPE_CHECKING:
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
    from pytest_llmmem.models.loading.loaded import LoadedModel
    from pytest_llmmem.models.loading.request import LoadRequest


def load(
    config: pytest.Config,
    checkpoint: "Checkpoint",
    chosen: Load,
    measured: Callable[[], AbstractContextManager[Any]],
    folder: Path,
) -> "LoadedModel":
    """Load a model as it was chosen; skips the test, with the reason, where the strategy cannot be used."""
    __tracebackhide__ = True
    from pytest_llmmem.models.loading.load_model import load_model
    from pytest_llmmem.models.loading.load_tracing import follow_load

    strategy = strategy_of(config, chosen)
    if reason := strategy.unavailable(checkpoint):
        pytest.skip(f"llm_load {strategy.name!r}: {reason}")
    if strategy.needs_ranks:
        join_process_group(config.stash.get(RANK, None))
    files = config.stash.get(SESSION_FILES, None)
    for library in ("safetensors", "gguf") if checkpoint.format == "gguf" else ("safetensors",):
        with contextlib.suppress(ImportError):
            importlib.import_module(library)  # what is not imported cannot be followed

    @contextlib.contextmanager
    def followed() -> Generator[Any]:
        __tracebackhide__ = True
        if files is None:
            with measured() as spent:
                yield spent
            return
        with measured() as spent, follow_load(files.place.write):
            try:
                yield spent
            except Exception as error:
                if place := files.place.read():
                    names = [shard.path.name for shard in checkpoint.shards]
                    error.add_note(f"while reading {describe_position(place.shard, place.tensor, names)}")
                raise

    return load_model(_request(config, checkpoint, chosen, folder), strategy, followed)


def _request(config: pytest.Config, checkpoint: "Checkpoint", chosen: Load, folder: Path) -> "LoadRequest":
    from pytest_llmmem import probes
    from pytest_llmmem.models.loading.request import LoadRequest

    trust = {"trust_remote_code": True} if settings_of(config).trust_remote_code else {}
    return LoadRequest(
        checkpoint=checkpoint,
        options=trust if chosen.loader else trust | dict(chosen.options),
        offload_folder=folder,
        device=settings_of(config).device,
        host_available_bytes=probes.host_memory().available_bytes,
    )


@contextlib.contextmanager
def scratch_folder(config: pytest.Config) -> Generator[Path]:
    """A folder for what a load puts on disk; in a worker the parent removes it too, should the worker die."""
    files = config.stash.get(SESSION_FILES, None)
    folder = Path(tempfile.mkdtemp(prefix="llmmem-offload-", dir=files.scratch if files else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
