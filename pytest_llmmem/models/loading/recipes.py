"""Hand-written loads that many projects have, because ``from_pretrained`` once needed more memory than they do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.weight_names import places


def load_naive(request: LoadRequest) -> Any:
    """Copy the weights of all shards, in one dictionary, into a random model: everything is in memory twice."""
    model = request.initialized()
    names = places(request.checkpoint, model)
    state = {name: tensor for path in files(request.checkpoint) for name, tensor in _read(path).items()}
    _copy(model, state, names)
    return _placed(request, model)


def load_sharded(request: LoadRequest) -> Any:
    """Copy one shard at a time into a random model: the model and the largest shard.

    ``load_sharded_checkpoint`` does the same for an index.
    """
    model = request.initialized()
    names = places(request.checkpoint, model)
    for path in files(request.checkpoint):
        _copy(model, _read(path), names)
    return _placed(request, model)


def load_empty(request: LoadRequest) -> Any:
    """Assign the checkpoint's tensors to a model without memory: nothing is in memory twice.

    Buffers that are in no checkpoint, such as rotary frequencies, are real from the start. ``load_checkpoint_in_model`` leaves
    weights that the installed version renames on ``meta``; they are assigned after it.
    """
    from accelerate import init_empty_weights, load_checkpoint_in_model
    from accelerate.utils import set_module_tensor_to_device

    checkpoint = request.checkpoint
    with init_empty_weights():
        model = request.initialized()
    model.tie_weights()
    names = places(checkpoint, model)
    single = files(checkpoint)[0]
    # without a device map accelerate asks for a process group, and older versions leave everything on meta
    device = request.device or "cpu"
    load_checkpoint_in_model(model, str(checkpoint.index or single), device_map={"": device})
    for path, renamed in _renamed(checkpoint, names):
        state = _read(path)
        for name in renamed:
            set_module_tensor_to_device(model, names[name], device, value=state[name])
    model.tie_weights()
    _require_numbers(checkpoint, model)
    return _placed(request, model)  # its buffers


def _placed(request: LoadRequest, model: Any) -> Any:
    return (model.to(request.device) if request.device else model).eval()


def files(checkpoint: Checkpoint) -> tuple[Path, ...]:
    """All weight files, also missing ones: opening a missing file raises."""
    missing = (checkpoint.path / name for name in checkpoint.missing)
    return tuple(sorted((*(shard.path for shard in checkpoint.shards), *missing)))


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    import torch

    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _copy(model: Any, state: dict[str, Any], names: dict[str, str]) -> None:
    model.load_state_dict({names[name]: tensor for name, tensor in state.items() if name in names}, strict=False)


def _renamed(checkpoint: Checkpoint, names: dict[str, str]) -> Iterator[tuple[Path, list[str]]]:
    """The shards with tensors that have another name in the model, and those tensors."""
    for shard in checkpoint.shards:
        if renamed := [each.name for each in shard.tensors if names.get(each.name, each.name) != each.name]:
            yield shard.path, renamed


def _require_numbers(checkpoint: Checkpoint, model: Any) -> None:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if left := [name for name, tensor in tensors.items() if tensor.device.type == "meta"]:
        msg = (
            f"--llm-model={checkpoint.source}: {len(left)} tensors were left on 'meta', without numbers ({', '.join(left[:3])}): "
            "load with the strategy 'default'"
        )
        raise CheckpointError(msg)
