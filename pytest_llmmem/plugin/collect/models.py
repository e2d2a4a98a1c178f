"""The session's models: sources are parsed once, become folders once, and their headers are read once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.sources import meta_interpreter
from pytest_llmmem.models.sources.cache import cache_folder
from pytest_llmmem.models.sources.source import Source, open_checkpoint, parse_source, resolve
from pytest_llmmem.plugin.collect.loads import loads_of
from pytest_llmmem.plugin.settings import Settings
from pytest_llmmem.plugin.state import MODELS, settings_of

_DEEPEST: Final = 8
"""Folders of a path that an id may have."""


class Models:
    """The models that ``--llm-model`` names."""

    def __init__(self, sources: tuple[Source, ...]) -> None:
        self.sources = sources
        self._folders: dict[Source, Path] = {}
        self._checkpoints: dict[Source, Checkpoint | LlmmemError] = {}
        """A checkpoint that cannot be read is requested by each test, and read once."""

    @classmethod
    def of(cls, settings: Settings, base: Path) -> "Models":
        """Raises ``SourceError`` for a text that can be no source."""
        return cls(tuple(parse_source(text, base=base) for text in dict.fromkeys(settings.model)))

    def fetch(self) -> None:
        """Make a folder of every source, before any test. Raises ``SourceError``."""
        for source in self.sources:
            self.folder(source)
        meta_interpreter.end()  # it would hold 300 MB while the tests run

    def folder(self, source: Source) -> Path:
        if source not in self._folders:
            self._folders[source] = resolve(source, cache=cache_folder())
        return self._folders[source]

    def checkpoint(self, source: Source) -> Checkpoint:
        """Read the headers. Raises ``CheckpointError`` or ``SourceError``."""
        if source not in self._checkpoints:
            try:
                self._checkpoints[source] = open_checkpoint(source, cache=cache_folder())
            except LlmmemError as error:
                self._checkpoints[source] = error
        found = self._checkpoints[source]
        if isinstance(found, LlmmemError):
            raise found.with_traceback(None)
        return found

    def checkpoint_of(self, item: pytest.Item) -> Checkpoint | None:
        """The checkpoint that a test is parametrized with; ``None`` without one. Raises as ``checkpoint`` does."""
        source = source_of(item)
        return self.checkpoint(source) if source else None


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each model of the session, and once for each way to load it."""
    sources = metafunc.config.stash[MODELS].sources
    scope = settings_of(metafunc.config).scope
    metafunc.parametrize("llm_model", sources, ids=distinct_labels(sources), indirect=True, scope=scope)
    if "llm_load" in metafunc.fixturenames and (loads := loads_of(metafunc.definition)):
        ids = [load.strategy for load in loads]
        metafunc.parametrize("llm_load", loads, ids=ids, indirect=True, scope=scope)


def distinct_labels(sources: Sequence[Source]) -> list[str]:
    """A label for each: of two folders of one name, as many of the folders above as tell them apart."""
    labels = [source.label for source in sources]
    for depth in range(2, _DEEPEST):
        twice = {label for label in labels if labels.count(label) > 1}
        labels = [
            "/".join(source.target.parts[-depth:]) if label in twice and isinstance(source.target, Path) else label
            for label, source in zip(labels, sources, strict=True)
        ]
    return labels


def source_of(item: pytest.Item) -> Source | None:
    """The model that a test is parametrized with."""
    callspec = getattr(item, "callspec", None)
    source = callspec.params.get("llm_model") if callspec else None
    return source if isinstance(source, Source) else None
