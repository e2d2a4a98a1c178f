"""The strategy that loads the model of each test."""

import contextlib
import importlib
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

from pytest_llmmem.core.errors import MarkerError, SettingError
from pytest_llmmem.core.load_position import describe_position
from pytest_llmmem.plugin.markers import LlmLoad
from pytest_llmmem.plugin.state import RANK, SESSION_FILES, settings_of

if TYPE_CHECKING:
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
    from pytest_llmmem.models.loading.loaded import LoadedModel
    from pytest_llmmem.models.loading.request import LoadRequest
    from pytest_llmmem.models.loading.strategy import Strategy

FITTING: Final = "first_load_that_fits"
"""The fixture that tries strategies until one fits."""


@dataclass(frozen=True, slots=True)
class Load:
    """A strategy by name, and what a test passes to it."""

    strategy: str = "default"
    options: Mapping[str, Any] = field(default_factory=dict)
    loader: Callable[..., Any] | None = None
    """The function of a marker; that of ``--llm-loader`` is found by its name, as a strategy is."""
    strategy_dtype: str | None = None
    """The dtype that the strategy casts to."""
    bits: int | None = None
    """Bits that the strategy quantizes to; ``None`` without, or when the team's own config sets them."""

    @classmethod
    def of(cls, strategy: "Strategy", options: Mapping[str, Any] | None = None) -> Self:
        """A load by a strategy that is known."""
        return cls(strategy.name, options or {}, strategy_dtype=strategy.dtype, bits=strategy.bits)

    @property
    def asked_dtype(self) -> str | None:
        """``"float16"``; ``None`` when the dtype was left to the library."""
        asked = self.options.get("dtype", self.options.get("torch_dtype", self.strategy_dtype))
        return None if asked in {None, "auto"} else str(asked).removeprefix("torch.")


def loads_of(definition: pytest.Item) -> list[Load]:
    """The loads that parametrize a test: its marker's load, or those of ``--llm-load``; none for just ``default``."""
    try:
        marker = LlmLoad.of(definition)
    except MarkerError:
        return []  # its plan complains, with the place
    if marker is None:
        return session_loads(definition.config)
    if marker.loader is not None:
        return [Load(marker.strategy, marker.options, marker.loader)]
    return [_named(definition.config, marker.strategy, marker.options)]


def session_loads(config: pytest.Config) -> list[Load]:
    """Those of ``--llm-loader`` and ``--llm-load``; none for just ``default``."""
    settings = settings_of(config)
    return [_named(config, name) for name in (*([settings.loader] if settings.loader else ()), *settings.load)]


def _named(config: pytest.Config, name: str, options: Mapping[str, Any] | None = None) -> Load:
    try:
        return Load.of(find_strategy(config, name), options)
    except ValueError:
        return Load(name, options or {})  # its plan complains, with the place


def load_of(item: pytest.Item) -> Load:
    """The load that a test runs with."""
    callspec = getattr(item, "callspec", None)
    load = callspec.params.get("llm_load") if callspec else None
    return load if isinstance(load, Load) else Load()


def find_strategy(config: pytest.Config, name: str) -> "Strategy":
    """The strategy of that name, built in or the team's own. Raises ``ValueError`` with the names that there are."""
    from pytest_llmmem.models.loading import strategies

    return strategies.find_strategy(name, own_strategies(config))


def own_strategies(config: pytest.Config) -> "list[Strategy]":
    """The team's own: those of the hook, and the loader of ``--llm-loader``. Raises ``ValueError`` where that is none."""
    return [*_session_loader(config), *(each for given in config.hook.pytest_llmmem_strategies() for each in given)]


def needs_config(config: pytest.Config) -> bool:
    """Whether a load of the session takes the model's class from ``config.json``: a team's own code may know it."""
    own = {strategy.name for strategy in own_strategies(config)}
    return any(load.strategy not in own for load in session_loads(config) or [Load()])


def _session_loader(config: pytest.Config) -> "Iterator[Strategy]":
    from dataclasses import replace

    from pytest_llmmem.models.loading.own_loader import check_options, import_loader
    from pytest_llmmem.models.loading.strategy import loader_strategy

    if text := settings_of(config).loader:
        function = import_loader(text)
        check_options(function, {})
        yield replace(loader_strategy(function), name=text)


def strategy_of(config: pytest.Config, chosen: Load) -> "Strategy":
    """The strategy of a test's load. Raises ``ValueError`` as ``find_strategy``."""
    from pytest_llmmem.models.loading.strategy import loader_strategy

    if chosen.loader is not None:
        return loader_strategy(chosen.loader, chosen.options)
    return find_strategy(config, chosen.strategy)


def check_load_settings(config: pytest.Config) -> None:
    """Raises ``SettingError`` for a ``--llm-load`` that names no strategy, and a ``--llm-loader`` that names no function."""
    if settings_of(config).loader:
        try:
            list(_session_loader(config))
        except ValueError as error:
            msg = f"--llm-loader: {error}"
            raise SettingError(msg) from None
    for name in settings_of(config).load:
        try:
            find_strategy(config, name)
        except ValueError as error:
            msg = f"--llm-load: {error}"
            raise SettingError(msg) from None


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
    if reason := strategy.unavailable():
        pytest.skip(f"llm_load {strategy.name!r}: {reason}")
    if strategy.needs_ranks:
        from pytest_llmmem.plugin.worker.ranks import join_process_group

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
