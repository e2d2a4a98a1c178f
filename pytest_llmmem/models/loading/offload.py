"""Loads that keep a part of the model outside host memory: their arguments, their disk writes, and the disk space they need."""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.models.loading.arguments import as_bytes
from pytest_llmmem.models.loading.request import LoadRequest


def auto_arguments(request: LoadRequest) -> dict[str, Any]:
    """Arguments for all devices, limited by the memory available here: accelerate plans with the host's, not the container's."""
    arguments = {"device_map": "auto", "offload_folder": str(request.offload_folder)}
    if request.host_available_bytes is None:
        return arguments
    from accelerate.utils import get_max_memory

    # keep a tenth free, as transformers 5 does by default
    host = {"cpu": request.host_available_bytes * 9 // 10}
    return arguments | {"max_memory": get_max_memory() | host}


def offload_arguments(request: LoadRequest) -> dict[str, Any]:
    """Arguments for half of the weights in memory, the rest on disk, no accelerator."""
    # accelerate reserves the largest layer: weights on disk pass through memory when they are used
    in_memory = request.loaded_bytes // 2 + _largest_layer_bytes(request)
    return {"device_map": "auto", "max_memory": {"cpu": in_memory}, "offload_folder": str(request.offload_folder)}


def load_offloaded(request: LoadRequest, arguments: Mapping[str, Any]) -> Any:
    """Call ``from_pretrained`` after a check of the free disk space. After a failure the folder is empty again.

    Raises ``OSError`` (``ENOSPC``) without space: the library itself would end in SIGBUS half-way.
    """
    _require_room(request, bytes_to_write(request, {**arguments, **request.options}.get("max_memory")))
    try:
        return request.from_pretrained(**arguments)
    except BaseException:
        for path in request.offload_folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def bytes_to_write(request: LoadRequest, max_memory: Mapping[Any, Any] | None) -> int:
    """Approximate bytes that a load within ``max_memory`` writes to its folder. Safetensors weights are read in place."""
    if max_memory is None or (request.checkpoint.format == "safetensors" and not _merges_weights(request)):
        return 0
    in_memory = sum(map(as_bytes, max_memory.values()))
    if in_memory >= request.loaded_bytes:
        return 0
    return min(request.loaded_bytes, request.loaded_bytes - in_memory + _largest_layer_bytes(request))


def written_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _require_room(request: LoadRequest, needed: int) -> None:
    free = shutil.disk_usage(request.offload_folder).free
    if needed > free:
        msg = (
            f"--llm-model={request.checkpoint.source}: about {format_size(needed)} would be offloaded to "
            f"{request.offload_folder}, which has {format_size(free)} left: allow more memory with max_memory, "
            "or set TMPDIR to a folder with room"
        )
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {msg}")


def _largest_layer_bytes(request: LoadRequest) -> int:
    """Bytes of the largest layer in the loaded dtype."""
    checkpoint = request.checkpoint
    return checkpoint.largest_layer_bytes * request.loaded_bytes // max(1, checkpoint.weights_bytes)


def _merges_weights(request: LoadRequest) -> bool:
    """Whether the installed version merges weights on disk, such as a mixture's experts. Merged weights are written."""
    try:
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping
        from transformers.core_model_loading import WeightConverter
    except ImportError:
        return False
    names = (request.model_class.__name__, request.checkpoint.model_type)
    return any(
        isinstance(each, WeightConverter) for name in names for each in get_checkpoint_conversion_mapping(name) or ()
    )
