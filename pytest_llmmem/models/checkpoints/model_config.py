"""``config.json``: the values this project uses, each one validated."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.foreign_json import read_object


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A config, with the values that all architectures share already validated."""

    raw: Mapping[str, Any]
    """The parsed file, not validated: any key may have any value."""

    class_names: tuple[str, ...]
    """Class names in ``architectures``."""

    model_type: str | None

    dtype: str | None
    """The dtype, from either key that transformers has used for it."""

    own_classes: Mapping[str, str]
    """Model classes in the checkpoint's own code, by the ``AutoModel...`` class of transformers that finds them."""

    complaints: tuple[str, ...]
    """Errors in the config, a clause each. An invalid value counts as absent."""

    repeated: tuple[str, ...]
    """Keys that occur twice: the last one counts."""

    @classmethod
    def of(cls, raw: Mapping[str, Any], *, repeated: Sequence[str] = ()) -> Self:
        """Validate a config that was read or made; an empty one for a model without a config."""
        classes, model_type = raw.get("architectures") or [], raw.get("model_type")
        dtype = raw.get("dtype") or raw.get("torch_dtype")
        complaints = []
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            complaints.append(f"'architectures' is {excerpt(repr(classes))}, and not a list of names of classes")
            classes = []
        if not isinstance(model_type, str | None):
            complaints.append(f"'model_type' is {excerpt(repr(model_type))}, and not a name")
            model_type = None
        auto_map = raw.get("auto_map") or {}
        if not isinstance(auto_map, dict):
            complaints.append(f"'auto_map' is {excerpt(repr(auto_map))}, and not an object")
            auto_map = {}
        return cls(
            raw=raw,
            class_names=tuple(classes),
            model_type=model_type,
            own_classes={
                auto: place.rpartition(".")[2]
                for auto, place in auto_map.items()
                if auto.startswith("AutoModel") and isinstance(place, str)
            },
            dtype=dtype if isinstance(dtype, str) else None,
            complaints=tuple(complaints),
            repeated=tuple(repeated),
        )


def read_config(folder: Path) -> ModelConfig:
    """Read the config of a checkpoint; an empty one when there is none. Raises ``CheckpointError`` unless it is a JSON object."""
    path = folder / "config.json"
    return read_config_file(path) if os.path.exists(path) else ModelConfig.of({})


def read_generation_config(folder: Path) -> Mapping[str, Any]:
    """Read ``generation_config.json``, not validated; empty when there is none. Raises ``CheckpointError`` as for a config."""
    path = folder / "generation_config.json"
    value: Mapping[str, Any] = read_object(path).value if os.path.exists(path) else {}
    return value


def read_config_file(path: Path) -> ModelConfig:
    """Read one config. Raises ``CheckpointError`` unless it is a JSON object."""
    parsed = read_object(path)
    return ModelConfig.of(parsed.value, repeated=parsed.repeated)
