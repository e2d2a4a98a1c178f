"""Loads by transformers that spread a model over the ranks of an existing process group."""

import importlib
import os
from typing import Any

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.loading.request import Code, LoadRequest, installed
from pytest_llmmem.models.loading.tensor_plan import undivided_heads

OLDEST = (4, 47)
"""The first version of transformers with ``tp_plan``."""


def load_tensor_parallel(request: LoadRequest) -> Any:
    """Load with tensor parallelism: each rank reads its part of every layer.

    Raises ``CheckpointError`` where the ranks do not divide the model's attention heads.
    """
    _require_whole_heads(request)
    sizes = _tensor_parallel()
    return (
        request.from_pretrained(distributed_config=_config(sizes)) if sizes else request.from_pretrained(tp_plan="auto")
    )


def tensor_parallel_call(request: LoadRequest) -> str:
    """The call of ``load_tensor_parallel`` as text."""
    sizes = _tensor_parallel()
    return request.written(distributed_config=_written(sizes)) if sizes else request.written(tp_plan="auto")


def load_fsdp(request: LoadRequest) -> Any:
    """Load with FSDP: each rank reads its part of every weight, and a layer is gathered when it runs."""
    return request.from_pretrained(distributed_config=_config(_fsdp()))


def fsdp_call(request: LoadRequest) -> str:
    """The call of ``load_fsdp`` as text."""
    return request.written(distributed_config=_written(_fsdp()))


def no_tensor_parallel() -> str | None:
    """The reason that tensor parallelism is unavailable here; ``None`` if it is available."""
    return None if installed("transformers") >= OLDEST else "needs transformers 4.47 or newer"


def no_fsdp() -> str | None:
    """The reason that FSDP is unavailable here; ``None`` if it is available."""
    return None if _has_config_for("fsdp_size") else "needs a transformers with DistributedConfig(fsdp_size)"


def _require_whole_heads(request: LoadRequest) -> None:
    """Refuse a number of ranks with which the model loads, and no forward runs."""
    own_plan = not {"tp_plan", "distributed_config"}.isdisjoint(request.options)
    if own_plan or not (request.checkpoint.path / "config.json").exists():
        return
    ranks = int(os.environ["WORLD_SIZE"])
    if heads := undivided_heads(request.config, ranks):
        numbers = " or ".join(str(number) for number in heads if number % ranks)
        fewer = next(count for count in range(ranks, 0, -1) if not any(number % count for number in heads))
        instead = f"use {fewer} ranks, or the load 'fsdp'" if fewer > 1 else "use the load 'fsdp'"
        msg = (
            f"--llm-model={request.checkpoint.source}: 'tensor_parallel' gives whole attention heads to each rank, and "
            f"{ranks} ranks cannot share {numbers} of them: {instead}"
        )
        raise CheckpointError(msg)


def _tensor_parallel() -> dict[str, Any]:
    """The fields of a ``DistributedConfig``; none where this version of transformers takes ``tp_plan`` instead."""
    return {"tp_size": int(os.environ["WORLD_SIZE"]), "tp_plan": "auto"} if _has_config_for("tp_size") else {}


def _fsdp() -> dict[str, Any]:
    return {"fsdp_size": int(os.environ["WORLD_SIZE"])}


def _config(fields: dict[str, Any]) -> Any:
    return importlib.import_module("transformers.distributed").DistributedConfig(**fields)


def _written(fields: dict[str, Any]) -> Code:
    return Code(f"DistributedConfig({', '.join(f'{name}={value!r}' for name, value in fields.items())})")


def _has_config_for(size: str) -> bool:
    try:
        config = importlib.import_module("transformers.distributed").DistributedConfig
    except (ImportError, AttributeError):
        return False
    return size in getattr(config, "__dataclass_fields__", ())
