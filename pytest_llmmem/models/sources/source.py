"""Values of ``--llm-model``: a folder, a file of tensors, a model on the Hub, or a synthetic checkpoint."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, assert_never, cast, get_args
from urllib.parse import parse_qsl

from pytest_llmmem.core.errors import CheckpointError, SourceError
from pytest_llmmem.core.long_paths import reachable, resolved
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.core.sizes import parse_size
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.checkpoint_folder import Format
from pytest_llmmem.models.checkpoints.model_config import ModelConfig, read_config_file
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.checkpoints.tensors import DTYPES
from pytest_llmmem.models.sources import adapters, hub
from pytest_llmmem.models.sources.presets import PRESETS
from pytest_llmmem.models.sources.synthetic import PUBLISHED_METHODS, Fill, SyntheticSpec, write_synthetic

_SYNTHETIC: Final = "synthetic:"
_HUB_ID: Final = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\S+))?")
_ACCEPTED: Final = (
    "write a folder, a file of tensors, a Hub id like 'org/name' or 'org/name@revision', "
    f"or '{_SYNTHETIC}' and a preset, a config.json or a folder with one"
)
_CHOICES: Final = {
    "dtype": tuple(name for name, dtype in DTYPES.items() if dtype.exponent_bits),
    "format": get_args(Format),
    "fill": get_args(Fill),
}
_OPTIONS: Final = (*_CHOICES, "shard")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A value of ``--llm-model``, parsed but not yet downloaded."""

    text: str
    """The source as the user wrote it."""

    label: str
    """A short name: the part of a test's id that names the model."""

    target: Path | hub.HubModel | SyntheticSpec

    adapter: Path | None = None
    """A PEFT adapter; ``target`` is its base model."""

    @property
    def kind(self) -> Literal["folder", "hub", "synthetic"]:
        """The kind of source."""
        match self.target:
            case Path():
                return "folder"
            case hub.HubModel():
                return "hub"
            case SyntheticSpec():
                return "synthetic"
            case never:
                assert_never(never)


def parse_source(text: str, *, base: Path) -> Source:
    """Parse a model source; relative paths start at ``base``. Reads at most a ``config.json``, downloads nothing.

    Raises ``SourceError`` for a folder that does not exist and for any text that names no model.
    """
    if text.startswith(_SYNTHETIC):
        try:
            return _synthetic(text, base=base)
        except ValueError as error:
            msg = f"--llm-model={text}: {error}"
            raise SourceError(msg) from error
    if not text:
        msg = f"--llm-model= is empty, as from a variable that is not set: {_ACCEPTED}"
        raise SourceError(msg)
    named, base_text = adapters.split_base(text)
    folder = _path(named, base)
    if folder.is_dir() and adapters.is_adapter(folder):
        return _adapter(text, folder, base_text, base=base)
    folder = _path(text, base)
    if folder.is_dir():
        return Source(text=text, label=Path(os.path.abspath(folder)).name, target=resolved(folder))
    if folder.is_file():
        if folder.name.endswith(".json"):
            msg = f"--llm-model={text}: this is no file of tensors: name the folder of the checkpoint, {folder.parent}"
            raise SourceError(msg)
        return Source(text=text, label=folder.name, target=resolved(folder))
    if match := _HUB_ID.fullmatch(text):
        return Source(text=text, label=text, target=hub.HubModel(repo=match["repo"], revision=match["revision"]))
    if text in PRESETS:
        msg = f"--llm-model={text}: there is no folder {folder}: for the preset of that name write '{_SYNTHETIC}{text}'"
        raise SourceError(msg)
    msg = f"--llm-model={text}: there is no folder {folder}, and this is no Hub id: {_ACCEPTED}"
    raise SourceError(msg)


def _adapter(text: str, folder: Path, base_text: str | None, *, base: Path) -> Source:
    """An adapter with its base model, which may be any other source."""
    label = Path(os.path.abspath(folder)).name
    of = parse_source(base_text or adapters.base_of(folder, text=text), base=base)
    return Source(text=text, label=label, target=of.target, adapter=resolved(folder))


def open_checkpoint(source: Source, *, cache: Path) -> Checkpoint:
    """Read the headers of a source, downloaded or made first. Raises ``SourceError`` and ``CheckpointError``."""
    checkpoint = read_checkpoint(resolve(source, cache=cache), source=source.text)
    if source.adapter is None:
        return checkpoint
    return replace(checkpoint, adapter=read_checkpoint(source.adapter))


def resolve(source: Source, *, cache: Path) -> Path:
    """The checkpoint's folder on this machine. The first call makes it below ``cache``, or downloads it to the Hub's cache.

    For an adapter it is the base model's folder.

    Several processes may call this at once: one does the work, the others wait for it. Raises ``SourceError``.
    """
    match source.target:
        case Path() as folder:
            return folder
        case hub.HubModel() as model:
            with _one_at_a_time(cache, model.repo.replace("/", "--")):
                return hub.fetch(model)
        case SyntheticSpec() as spec:
            folder = cache / spec.key
            try:
                with _one_at_a_time(cache, spec.key):
                    if not folder.exists():
                        write_synthetic(spec, folder)
            except OSError as error:
                msg = f"--llm-model={source.text}: it cannot be made in {cache} ({error}): name a cache with room to write"
                raise SourceError(msg) from error
            return folder
        case never:
            assert_never(never)


@contextmanager
def _one_at_a_time(cache: Path, name: str) -> Iterator[None]:
    from filelock import FileLock

    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{name}.lock"):
        yield


def _synthetic(text: str, *, base: Path) -> Source:
    """Parse ``synthetic:NAME?dtype=…&shard=…&format=…&fill=…``. Raises ``ValueError`` with the reason."""
    name, _, query = text.removeprefix(_SYNTHETIC).partition("?")
    options = _options(query)
    if preset := PRESETS.get(name):
        config, shard = ModelConfig.of(preset.config), preset.shard
    else:
        path = _config_path(name, base=base)
        config, shard, name = _read_config(path), "5GB", path.parent.name if path.name == "config.json" else path.stem
    chosen = {"dtype": config.dtype or "float32", "shard": shard, "format": "safetensors", "fill": "holes"} | options
    for option, accepted in _CHOICES.items():
        if chosen[option] not in accepted:
            msg = f"{option}={excerpt(chosen[option])} is not known: write one of {', '.join(accepted)}"
            raise ValueError(msg)
    if chosen["format"] == "bin" and DTYPES[chosen["dtype"]].storage is None:
        msg = f"a .bin file of {chosen['dtype']} cannot be made: write format=safetensors or another dtype"
        raise ValueError(msg)
    if (shard_bytes := parse_size(chosen["shard"])) == 0:
        msg = f"shard={chosen['shard']} holds nothing: write a size like '2GB'"
        raise ValueError(msg)
    spec = SyntheticSpec(
        name=name,
        config_json=json.dumps(config.raw, sort_keys=True),
        dtype=chosen["dtype"],
        shard_bytes=shard_bytes,
        format=cast("Format", chosen["format"]),
        fill=cast("Fill", chosen["fill"]),
    )
    return Source(text=text, label=f"{name}?{query}" if query else name, target=spec)


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in _OPTIONS:
            msg = (
                f"{option!r} is no option of a synthetic checkpoint: write {', '.join(f'{name}=' for name in _OPTIONS)}"
            )
            raise ValueError(msg)
    return options


def _config_path(name: str, *, base: Path) -> Path:
    path = _path(name, base)
    path = path / "config.json" if path.is_dir() else path
    if not name or not path.is_file():
        msg = f"there is no preset {name!r} and no file {path}: write one of {', '.join(PRESETS)}, or a config.json that is there"
        raise ValueError(msg)
    return resolved(path)


def _path(text: str, base: Path) -> Path:
    # Path.expanduser raises for an unknown user; here the result is a folder that does not exist.
    return reachable(base / os.path.expanduser(text))


def _read_config(path: Path) -> ModelConfig:
    try:
        config = read_config_file(path)
    except CheckpointError as error:
        raise ValueError(error) from None
    if config.complaints:
        msg = f"in {path} {config.complaints[0]}: name the config.json of a model"
        raise ValueError(msg)
    if config.model_type is None:
        msg = f"{path} has no 'model_type': name the config.json of a model"
        raise ValueError(msg)
    if quantization := config.raw.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        if method not in PUBLISHED_METHODS:
            msg = (
                f"{path} is of a model that was quantized by {excerpt(repr(method))}, and only the tensors of "
                f"{' and '.join(PUBLISHED_METHODS)} are known from a config: take 'quantization_config' out"
            )
            raise ValueError(msg)
    return config
