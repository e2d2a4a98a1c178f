"""Where a model's bytes really are: storages, not what a library says about itself.

``get_memory_footprint`` reports the unquantised size for torchao and quanto and counts weights that were offloaded to
disk; here tied weights count once, and a tensor subclass counts as the plain tensors that it is made of.
"""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PAGE = 4096


def plain_tensors(model: Any) -> Iterator[Any]:
    """Every plain tensor below the model's parameters and buffers, quantised ones taken apart."""
    for tensor in (*model.parameters(), *model.buffers()):
        yield from _flatten(tensor)


def _flatten(tensor: Any) -> Iterator[Any]:
    state = getattr(tensor, "quant_state", None)
    if state is not None:  # bitsandbytes keeps scales beside the packed weight
        nested = getattr(state, "state2", None)
        for part in (state, nested):
            for name in ("absmax", "code", "offset"):
                extra = getattr(part, name, None)
                if extra is not None and hasattr(extra, "untyped_storage"):
                    yield extra
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield tensor
        return
    for name in flatten()[0]:
        yield from _flatten(getattr(tensor, name))


def nbytes_by_device(model: Any) -> dict[str, int]:
    """Bytes of distinct storages by device, ``"cpu"``, ``"cuda:0"``; tensors on ``"meta"`` by their size."""
    sizes: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    for tensor in plain_tensors(model):
        device = str(tensor.device)
        if device == "meta":
            sizes[device] = sizes.get(device, 0) + tensor.numel() * tensor.element_size()
            continue
        storage = tensor.untyped_storage()
        key = (device, storage.data_ptr())
        if key not in seen:
            seen.add(key)
            # a view of a mapped shard has the whole shard as its storage: count what the tensor covers
            sizes[device] = sizes.get(device, 0) + min(storage.nbytes(), tensor.numel() * tensor.element_size())
    return sizes


def mapped_nbytes(folder: Path) -> int | None:
    """Bytes of the folder's weight files that are mapped by this process and not resident; ``None`` if unknown."""
    if sys.platform != "linux":
        return None
    prefix = f"{folder.resolve()}/"
    missing, ours, size = 0, False, 0
    with open("/proc/self/smaps") as lines:
        for line in lines:
            name, _, rest = line.partition(":")
            if " " in name:  # a mapping's own line: "address perms offset dev inode path"
                ours = prefix in line
            elif ours and name == "Size":
                size = int(rest.split()[0]) * 1024
            elif ours and name == "Rss":
                missing += size - int(rest.split()[0]) * 1024
    return missing


def touch(model: Any) -> None:
    """Read one byte of every page of every weight, so that all of the model is resident."""
    import torch

    for tensor in plain_tensors(model):
        if tensor.device.type == "cpu" and tensor.numel():
            raw = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
            start = tensor.storage_offset() * tensor.element_size()
            raw[start : start + tensor.numel() * tensor.element_size() : _PAGE].sum()


def trim() -> None:
    """Collect garbage and hand freed memory back to the kernel, where the allocator can."""
    gc.collect()
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)
