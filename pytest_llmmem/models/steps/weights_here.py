"""The weights that this process holds, of a model that may be spread over ranks."""

from collections import defaultdict
from typing import Any

from pytest_llmmem.models.loading.storage import part_here, plain_tensors, union
from pytest_llmmem.models.steps.tensors import storage_of
from pytest_llmmem.models.steps.torch_internals import storage_key

__all__ = ["held_by_storage", "part_here"]


def held_by_storage(model: Any) -> dict[int, int]:
    """Bytes that the model's tensors use of each of their storages, by its key: a part may be a view of a whole shard."""
    spans: defaultdict[int, set[tuple[int, int]]] = defaultdict(set)
    for _, tensor in plain_tensors(model):
        if (memory := storage_of(tensor)) is not None:
            begin = tensor.storage_offset() * tensor.element_size()  # fake tensors have no address
            spans[storage_key(memory)].add((begin, begin + tensor.nbytes))
    return {key: sum(end - start for start, end in union(found)) for key, found in spans.items()}
