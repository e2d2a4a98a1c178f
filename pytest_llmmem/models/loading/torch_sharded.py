"""Loads into a model that torch itself has sharded (``fully_shard``): the recipes of training frameworks."""

import contextlib
import os
from collections.abc import Generator
from typing import Any, Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.loading.request import LoadRequest, installed
from pytest_llmmem.models.loading.weight_names import places

_RANK_0_READS: Final = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
"""Set by ``accelerate launch --use_fsdp --fsdp_cpu_ram_efficient_loading true``; ``from_pretrained`` looks at it."""
_OLDEST_TORCH: Final = (2, 9)
"""The first release in which ``HuggingFaceStorageReader`` is public."""


def load_dcp(request: LoadRequest) -> Any:
    """Shard a model without memory, and let ``torch.distributed.checkpoint`` read this rank's part of each weight.

    Raises ``CheckpointError`` for other files than safetensors.
    """
    from accelerate import init_empty_weights
    from torch import empty_like
    from torch.distributed import checkpoint as dcp

    checkpoint = request.checkpoint
    if checkpoint.format != "safetensors":
        msg = (
            f"--llm-model={checkpoint.source}: 'dcp' reads safetensors, and these weights are {checkpoint.format} files"
        )
        raise CheckpointError(msg)
    with init_empty_weights():
        model = request.initialized()
    model.tie_weights()
    names = places(checkpoint, model)
    device = _shard(model)
    empty = model.state_dict(keep_vars=True)
    state = {name: empty_like(empty[place], device=device, requires_grad=False) for name, place in names.items()}
    dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader(str(checkpoint.path)))
    model.load_state_dict({names[name]: value for name, value in state.items()}, strict=False, assign=True)
    model.tie_weights()
    return model.to(device).eval()  # buffers that are in no checkpoint


def dcp_call(request: LoadRequest) -> str:
    """The call of ``load_dcp`` as text."""
    return f"dcp.load(state_dict, storage_reader=HuggingFaceStorageReader({str(request.checkpoint.path)!r}))"


def load_fsdp_rank0(request: LoadRequest) -> Any:
    """Read the weights on rank 0 alone, as accelerate's ``cpu_ram_efficient_loading`` does: it sends the others their parts."""
    from torch import distributed

    with _environment(_RANK_0_READS):
        model = request.from_pretrained()
    weights = model.state_dict()
    beside = {name: buffer for name, buffer in model.named_buffers() if name not in weights}
    if distributed.get_rank():
        weights = {}
    model.to("meta")
    model.tie_weights()
    device = _shard(model)
    for name, buffer in beside.items():
        place, _, attribute = name.rpartition(".")
        model.get_submodule(place).register_buffer(attribute, buffer.to(device), persistent=False)
    model.load_state_dict(_parts(model, weights, device), strict=False, assign=True)
    model.tie_weights()
    return model.eval()


def _parts(model: Any, weights: dict[str, Any], device: str) -> dict[str, Any]:
    """The parts of this rank, a tied weight once. Rank 0 has the ``weights``, and sends them one after the other."""
    import torch
    from torch import distributed
    from torch.distributed.tensor import DTensor, distribute_tensor

    places: dict[int, tuple[str, Any]] = {}
    for name, place in model.state_dict(keep_vars=True).items():
        places.setdefault(id(place), (name, place))  # a tie is made from its first name
    # one buffer for all of them: what is freed between the parts would stay in the allocator's heap
    sizes = [0] if weights else [place.numel() * place.element_size() for _, place in places.values()]
    buffer = torch.empty(max(sizes), dtype=torch.uint8, device=device)
    parts = {}
    for name, place in places.values():
        if weights:
            whole = weights[name].to(device).contiguous()
        else:
            whole = buffer[: place.numel() * place.element_size()].view(place.dtype).view(place.shape)
        distributed.broadcast(whole, src=0)
        split = isinstance(place, DTensor)
        part = distribute_tensor(whole, place.device_mesh, place.placements, src_data_rank=None) if split else whole
        parts[name] = part.clone()
    return parts


def fsdp_rank0_call(request: LoadRequest) -> str:
    """The call of ``load_fsdp_rank0`` as text."""
    names = " ".join(f"{name}={value}" for name, value in _RANK_0_READS.items())
    return f"{request.written()} with {names}"


def no_dcp() -> str | None:
    """The reason that ``dcp`` is unavailable here; ``None`` if it is available."""
    return None if installed("torch") >= _OLDEST_TORCH else "needs torch 2.9 or newer"


def _shard(model: Any) -> str:
    """Shard each layer and the rest over all ranks (FSDP2). Returns the type of device that they compute on."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    mesh = init_device_mesh(device, (distributed.get_world_size(),))
    layers = set(model._no_split_modules or ())  # noqa: SLF001 -- accelerate reads it too; it has no public name
    for module in model.modules():
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return device


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Generator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
