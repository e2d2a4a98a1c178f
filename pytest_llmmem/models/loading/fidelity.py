"""Comparison of a model with its checkpoint: the names of the weights, and their values."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmmem.core.printable import some_of
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint, Shard
from pytest_llmmem.models.loading.storage import place_of
from pytest_llmmem.models.loading.tensor_walk import is_module, is_tensor
from pytest_llmmem.models.loading.weight_names import renaming

_COMPARED: Final = 64
"""Leading elements of each tensor that are compared: a newly initialized weight differs in the first ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Names of the weights in which a model differs from its checkpoint."""

    missing: tuple[str, ...] = ()
    """Weights of the model that are not in the checkpoint: newly initialized, or a lost tie."""
    unexpected: tuple[str, ...] = ()
    """Tensors of the checkpoint that the model does not have."""
    mismatched: tuple[str, ...] = ()
    """Weights with another shape than in the checkpoint: also newly initialized."""
    changed: tuple[str, ...] = ()
    """Weights with the same name and shape as in the checkpoint, but other values."""
    unknown: str = ""
    """The reason that the comparison is impossible; empty where it is possible."""

    def sentences(self) -> Iterator[str]:
        """A sentence for each kind of difference."""
        if self.missing:
            yield f"not in the checkpoint (initialized anew, or a tie that was lost): {_count(self.missing)}"
        if self.mismatched:
            yield f"of another shape than in the checkpoint: {_count(self.mismatched)}"
        if self.unexpected:
            yield f"in the checkpoint, and not in the model: {_count(self.unexpected)}"
        if self.changed:
            yield f"with other numbers than in the checkpoint: {_count(self.changed)}"


def from_report(info: Mapping[str, Any]) -> Differences:
    """Differences from the report of ``from_pretrained(output_loading_info=True)``."""

    def names(key: str) -> tuple[str, ...]:
        # a mismatch is a tuple of the name and both shapes
        return tuple(sorted(str(each[0]) if isinstance(each, tuple) else str(each) for each in info.get(key) or ()))

    return Differences(
        missing=names("missing_keys"), unexpected=names("unexpected_keys"), mismatched=names("mismatched_keys")
    )


def compare(checkpoint: Checkpoint, model: Any) -> Differences:
    """Differences in the names and in the first values of each tensor, for a model without a loading report.

    A tensor of the checkpoint matches the model's tensor with the same name, or with the same unique end of the name.
    """
    held = _Names(dict(named_tensors(model)))
    if not held.tensors:
        return Differences(unknown=f"no names of weights are found in {type(model).__name__}")
    rename = renaming(model) if hasattr(model, "base_model_prefix") else str
    places = {each.name: held.find(rename(each.name)) or held.find(each.name) for each in checkpoint.tensors}
    found = {name: place for name, place in places.items() if place is not None}
    if len(found) < len(places) / 2:
        return Differences(
            unknown=f"{len(found)} of {len(places)} names of the checkpoint are in the model: it has names of its own"
        )
    filled = {place_of(held.tensors[place]) for place in found.values()}  # a tied weight under any of its names
    shapes = {each.name: each.shape for each in checkpoint.tensors}
    mismatched = {name for name, place in found.items() if tuple(held.tensors[place].shape) != shapes[name]}
    return Differences(
        missing=tuple(name for name, tensor in held.tensors.items() if place_of(tensor) not in filled),
        unexpected=tuple(name for name, place in places.items() if place is None),
        mismatched=tuple(sorted(mismatched)),
        # a pipeline's tensors have other names in their files
        changed=()
        if checkpoint.component_names
        else tuple(_changed(checkpoint, {n: held.tensors[p] for n, p in found.items() if n not in mismatched})),
    )


def named_tensors(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors that a model would save, by name: parameters and persistent buffers, those of its modules, a dict's tensors."""
    if is_tensor(model):
        yield prefix.removesuffix("."), model
    elif is_module(model):
        yield from (
            (f"{prefix}{name}", tensor)
            for name, tensor in model.state_dict(keep_vars=True).items()
            if is_tensor(tensor)
        )
    elif isinstance(model, dict):
        for name, value in model.items():
            yield from named_tensors(value, f"{prefix}{name}.")
    else:
        for name, value in getattr(model, "__dict__", {}).items():
            if is_module(value):
                yield from named_tensors(value, f"{prefix}{name}.")


@dataclass(frozen=True, slots=True)
class _Names:
    """The model's tensors, found by the ends of their names."""

    tensors: Mapping[str, Any]
    _by_end: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        for name in self.tensors:
            for end in _ends(name):
                self._by_end[end].add(name)

    def find(self, name: str) -> str | None:
        if name in self.tensors:
            return name
        # a base model may be under a prefix in the checkpoint, in the model, or in both
        for end in _ends(name):
            if len(found := self._by_end.get(end, ())) == 1 and "." in end:
                return next(iter(found))
        return None


def _ends(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.partition(".")[2]


def _changed(checkpoint: Checkpoint, tensors: Mapping[str, Any]) -> Iterator[str]:
    """Names of tensors whose first values differ from the file, compared in the model's dtype."""
    import torch

    for shard in checkpoint.shards:
        with suppress(ImportError):
            for name, stored in _starts(shard, [each.name for each in shard.tensors if each.name in tensors]):
                held = tensors[name]
                if (
                    held.device.type == "meta"
                    or not held.dtype.is_floating_point
                    or hasattr(held, "__tensor_flatten__")
                ):
                    continue  # on disk, or packed
                start = held.detach().reshape(-1)[:_COMPARED].cpu() if held.is_contiguous() else None
                if start is None or torch.allclose(start, stored.to(start.dtype), rtol=0.01, equal_nan=True):
                    continue  # two casts may differ by a rounding error
                yield name


def _starts(shard: Shard, names: list[str]) -> Iterator[tuple[str, Any]]:
    """The first values of tensors in a file. The file is mapped, so no more is read."""
    if shard.path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(shard.path, framework="pt") as file:
            for name in names:
                yield name, file.get_tensor(name).reshape(-1)[:_COMPARED]
        return
    import torch

    with suppress(RuntimeError, OSError, ValueError):  # a format that torch cannot map
        state = torch.load(shard.path, map_location="cpu", weights_only=True, mmap=True)
        held = _Names(dict(named_tensors(state)))
        places = (
            (name, held.find(name)) for name in names
        )  # the file of a training has the state dict under a key of its own
        yield from ((name, held.tensors[place].reshape(-1)[:_COMPARED]) for name, place in places if place is not None)


def _count(names: tuple[str, ...]) -> str:
    return f"{some_of(names)} ({len(names)} in all)" if len(names) > 3 else some_of(names)
