"""The ``config.json`` of a model source, without its weights."""

import json
from pathlib import Path
from typing import Any, assert_never

from pytest_llmmem.core.errors import SourceError
from pytest_llmmem.models.checkpoints.model_config import ModelConfig, read_config
from pytest_llmmem.models.sources import hub
from pytest_llmmem.models.sources.source import Source
from pytest_llmmem.models.sources.synthetic import SyntheticSpec


def source_config(source: Source) -> ModelConfig:
    """Read the config. From the Hub only that file is downloaded. Raises ``SourceError`` where there is none.

    The config of a synthetic model has the requested dtype.
    """
    match source.target:
        case Path() as folder:
            config = read_config(folder)
        case hub.HubModel() as model:
            config = read_config(hub.fetch_config(model))
        case SyntheticSpec() as spec:
            config = ModelConfig.of({**json.loads(spec.config_json), "dtype": spec.dtype})
        case never:
            assert_never(never)
    if config.model_type is None:
        msg = f"--llm-model={source.text}: its config.json has no 'model_type': name the config of a transformers model"
        raise SourceError(msg)
    return config


def plain_config(config: ModelConfig) -> dict[str, Any]:
    """The config without its quantization: a strategy sets that."""
    return {key: value for key, value in config.raw.items() if key != "quantization_config"}
