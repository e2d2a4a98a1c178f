"""A rank's share of a model: its part of each weight that the load splits, and the whole of each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.loading.storage import elements, part_here
from pytest_llmmem.models.loading.tensor_plan import is_split, plan_of
from pytest_llmmem.models.loading.weight_names import renaming


@dataclass(frozen=True, slots=True, kw_only=True)
class RankShare:
    """Weights that this rank is to hold, and those that it holds whole although the load was to split them."""

    nbytes: int
    """A part of each weight that the load splits, where it cannot split evenly the part that it gave, and each other weight."""

    unsplit: tuple[str, ...]
    """Names of weights that are as large here as in the checkpoint, where the load was to give each rank a part."""


def share_of(
    model: Any, checkpoint: Checkpoint, arguments: Mapping[str, Any], *, whole_nbytes: int, ranks: int
) -> RankShare:
    """The share of this rank in a model of ``whole_nbytes``, loaded with these arguments of ``from_pretrained``.

    A tensor parallel load splits what the plan of the model's class says; every other load over ranks splits everything.
    """
    plan = plan_of(model) if _is_tensor_parallel(arguments) else None
    rename = renaming(model)
    shapes = {rename(tensor.name): tensor.shape for tensor in checkpoint.tensors}
    beyond, unsplit = 0.0, []
    for name, weight in model.named_parameters():
        part = part_here(weight)
        whole = elements(weight) * part.element_size()
        if part.nbytes < whole or (plan is not None and not is_split(plan, name, weight)):
            beyond += part.nbytes - whole / ranks
        elif tuple(part.shape) == shapes.get(name):
            unsplit.append(name)
    return RankShare(nbytes=round(whole_nbytes / ranks + beyond), unsplit=tuple(unsplit))


def _is_tensor_parallel(arguments: Mapping[str, Any]) -> bool:
    return "tp_plan" in arguments or getattr(arguments.get("distributed_config"), "tp_size", 1) > 1
