"""The strategy that loads the model of each test."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

from pytest_llmmem.core.errors import MarkerError, SettingError
from pytest_llmmem.plugin.markers import LlmLoad
from pytest_llmmem.plugin.state import settings_of

if TYPE_CHECKING:
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
        from pytest_llmmem.models.loading.arguments import name_of_dtype

        return name_of_dtype(self.options.get("dtype", self.options.get("torch_dtype", self.strategy_dtype)))


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
