"""The storage of a model's weights, found by address and not from a library's own report.

``get_memory_footprint`` reports the unquantized size for torchao and quanto and counts weights that were offloaded to
disk. Here tied weights and views of them count once, and a quantized tensor counts as its plain tensors.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pytest_llmmem.models.loading.tensor_walk import is_module, is_tensor, walk

_BESIDE = ("absmax", "code", "offset", "CB", "SCB", "ds_tensor")
"""Attributes beside a weight. bitsandbytes: scales, tables, and, for 8 bits, a second copy; DeepSpeed: this rank's part."""


def plain_tensors(model: Any, *, of: Literal["weights", "everything"] = "everything") -> Iterator[tuple[str, Any]]:
    """Every plain tensor of the model's weights, its buffers and its other attributes, with its device.

    Quantized tensors are split into plain ones. ``"disk"`` is a weight that accelerate reads at each use; a weight on
    ``"meta"`` has no values. A tied weight comes once for each of its names. The model may be any object
    that ``walk`` accepts; a tensor that belongs to no module is a weight.
    """
    for value, is_attribute in walk(model):
        if is_module(value):
            yield from _of_module(value, of=of)
        elif not is_attribute:
            yield from ((str(plain.device), plain) for plain in _flatten(value))
        elif of == "everything":
            # on meta it is neither memory nor a weight: FSDP keeps the weights that it sharded, and has replaced since
            yield from ((str(plain.device), plain) for plain in _flatten(value) if plain.device.type != "meta")


def _of_module(module: Any, *, of: Literal["weights", "everything"]) -> Iterator[tuple[str, Any]]:
    named = list(module.named_parameters(recurse=False))
    if of == "everything":
        named += module.named_buffers(recurse=False)
    for name, tensor in named:
        device, held = _home(module, name, tensor)
        for plain in _flatten(held):
            yield device or str(plain.device), plain
    yield from ((str(plain.device), plain) for plain in _beside(getattr(module, "state", None)))


def weights(model: Any) -> list[Any]:
    """Each parameter of each module, and each tensor outside of a module, once. Quantized tensors are not split."""
    found: dict[int, Any] = {}
    for value, is_attribute in walk(model):
        if is_module(value):
            found |= {id(weight): weight for weight in value.parameters(recurse=False)}
        elif not is_attribute:
            found[id(value)] = value
    return list(found.values())


def nbytes_by_device(model: Any, *, of: Literal["weights", "everything"] = "everything") -> dict[str, int]:
    """Bytes by ``"cpu"``, ``"cuda:0"``, ``"disk"`` and ``"meta"``. The last two count the weight's size in use."""
    spans: dict[str, set[tuple[int, int]]] = {}
    absent: dict[int, tuple[str, int]] = {}
    for device, tensor in plain_tensors(model, of=of):
        size = tensor.nbytes
        if tensor.device.type != "meta":
            spans.setdefault(device, set()).add((tensor.data_ptr(), tensor.data_ptr() + size))
        elif device == "disk" or id(tensor) not in absent:
            absent[id(tensor)] = device, size
    sizes = Counter({device: sum(end - start for start, end in union(found)) for device, found in spans.items()})
    for device, size in absent.values():
        sizes[device] += size
    return dict(sizes)


def buffer_nbytes(model: Any) -> int:
    """Bytes of all buffers of all modules in memory, each storage once."""
    buffers = (buffer for value, _ in walk(model) if is_module(value) for buffer in value.buffers(recurse=False))
    plain = (tensor for buffer in buffers for tensor in _flatten(buffer) if tensor.device.type != "meta")
    return sum(end - start for start, end in union((each.data_ptr(), each.data_ptr() + each.nbytes) for each in plain))


def main_dtype(model: Any) -> Any:
    """The ``torch.dtype`` of most bytes of the floating-point weights, or else of all weights; ``None`` without weights."""
    sizes: Counter[Any] = Counter()
    for _, tensor in plain_tensors(model, of="weights"):
        sizes[tensor.dtype] += tensor.nbytes
    return max(sizes, key=lambda dtype: (dtype.is_floating_point, sizes[dtype]), default=None)


def quantized_elements(model: Any, *, bits: int) -> int:
    """Elements of all weights that are stored in fewer than ``bits`` bits each, scales included."""
    return sum(elements(weight) for weight in weights(model) if _bits_per_element(weight) < bits)


def share_here(model: Any) -> float:
    """The share of the model's elements in this process: below 1 where its weights are spread over several ranks."""
    all_of_them = weights(model)
    whole = sum(map(elements, all_of_them))
    return sum(elements(part_here(weight)) for weight in all_of_them) / whole if whole else 1.0


def elements(weight: Any) -> int:
    """Number of elements of a weight, packed or not, in all ranks together."""
    whole: int | None = getattr(weight, "ds_numel", None)  # DeepSpeed's; the weight itself is empty until it is used
    return math.prod(getattr(getattr(weight, "quant_state", None), "shape", weight.shape)) if whole is None else whole


def part_here(weight: Any) -> Any:
    """The part of a distributed tensor on this rank: torch's DTensor, or DeepSpeed's partition."""
    part = getattr(weight, "ds_tensor", None)
    if part is not None:
        return part
    return weight.to_local() if hasattr(weight, "to_local") else weight


def place_of(weight: Any) -> int:
    """The same number for weights that are one in memory: the address of the part on this rank, or else the tensor's id."""
    part = part_here(weight)  # a distributed tensor has no address itself
    return (part.data_ptr() if part.device.type != "meta" else 0) or id(weight)


def union(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Merge overlapping spans, in ascending order. A span is its start and its end."""
    reached = 0
    for start, end in sorted(spans):
        if end > reached:
            yield max(start, reached), end
            reached = end


def _home(module: Any, name: str, tensor: Any) -> tuple[str | None, Any]:
    """The source of a weight on ``meta`` when it is used, from accelerate's hook. ``None``: the tensor's own device."""
    if tensor.device.type != "meta":
        return None, tensor
    hook = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", (hook,)):
        weights = getattr(each, "weights_map", None)
        if weights is None:
            continue
        full_name = f"{getattr(weights, 'prefix', '')}{name}"
        weights = getattr(weights, "dataset", weights)
        in_memory = getattr(weights, "state_dict", weights)
        if full_name in in_memory:
            return None, in_memory[full_name]
        if full_name in (getattr(weights, "index", None) or ()):
            return "disk", tensor
    return "meta", tensor


def _flatten(tensor: Any) -> Iterator[Any]:
    """The plain tensors that a tensor consists of, and those beside it."""
    yield from _beside(tensor)
    yield from _beside(getattr(tensor, "quant_state", None))
    yield from _beside(getattr(getattr(tensor, "quant_state", None), "state2", None))
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield tensor
        return
    for name in flatten()[0]:
        if is_tensor(part := getattr(tensor, name)):  # a distributed tensor also names its mesh
            yield from _flatten(part)


def _beside(holder: Any) -> Iterator[Any]:
    return (part for name in _BESIDE if is_tensor(part := getattr(holder, name, None)))


def _bits_per_element(weight: Any) -> float:
    here = part_here(weight)
    stored = {tensor.data_ptr(): tensor.nbytes for tensor in _flatten(here)}
    return float(8 * sum(stored.values()) / max(1, elements(here)))
