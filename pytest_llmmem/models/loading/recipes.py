"""Loads that are written out by hand in many projects, because ``from_pretrained`` once needed more memory than they do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.weight_names import places


def load_naive(request: LoadRequest) -> Any:
    """A random model, all shards in one dictionary beside it, and a copy of one into the other: everything twice."""
    model = request.initialised()
    names = places(request.checkpoint, model)
    state = {name: tensor for path in files(request.checkpoint) for name, tensor in _read(path).items()}
    _copy(model, state, names)
    return _placed(request, model)


def load_sharded(request: LoadRequest) -> Any:
    """The same with one shard at a time: the model, and the largest shard. ``load_sharded_checkpoint`` does this for an index."""
    model = request.initialised()
    names = places(request.checkpoint, model)
    for path in files(request.checkpoint):
        _copy(model, _read(path), names)
    return _placed(request, model)


def load_empty(request: LoadRequest) -> Any:
    """A model without memory, whose weights become the checkpoint's own: nothing twice.

    Buffers that are in no checkpoint, such as rotary frequencies, are real from the start. Weights that the installed
    version calls by other names are put in after ``load_checkpoint_in_model``, which leaves them on ``meta``.
    """
    from accelerate import init_empty_weights, load_checkpoint_in_model
    from accelerate.utils import set_module_tensor_to_device

    checkpoint = request.checkpoint
    with init_empty_weights():
        model = request.initialised()
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
    """Every file that holds weights, also those that are not there: whoever opens them says so."""
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
    """The shards with tensors that the model calls by another name, and those tensors."""
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
