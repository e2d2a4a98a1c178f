"""Weights that an architecture ties, beside the checkpoint and the model: lost, or stored twice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.loading.storage import place_of
from pytest_llmmem.models.loading.weight_names import renaming


@dataclass(frozen=True, slots=True, kw_only=True)
class TieFaults:
    """Names of tied weights that are not as their class declares."""

    lost: tuple[str, ...] = ()
    """Stored once, and in the model with memory of their own."""
    stored_twice: tuple[str, ...] = ()
    """One weight of the model, and stored under both names."""


def tie_faults_of(checkpoint: Checkpoint, model: Any) -> TieFaults:
    """Compare the ties that the model's class declares; empty for a model of another library. Reads no weight."""
    declared = _declared(model)
    if not declared:
        return TieFaults()
    rename, prefix = renaming(model), f"{model.base_model_prefix}."
    stored = {name for each in checkpoint.tensors for name in (each.name, rename(each.name))}
    weights = dict(model.named_parameters(remove_duplicate=False))
    lost, twice = [], []
    for name, source in declared.items():
        if (
            name not in weights
            or source not in weights
            or "meta" in {weights[name].device.type, weights[source].device.type}
        ):
            continue
        is_tied = place_of(weights[name]) == place_of(weights[source])
        both_stored = all({each, each.removeprefix(prefix)} & stored for each in (name, source))
        if is_tied and both_stored:
            twice.append(name)
        elif not is_tied and not both_stored:
            lost.append(name)
    return TieFaults(lost=tuple(lost), stored_twice=tuple(twice))


def _declared(model: Any) -> Mapping[str, str]:
    """Names of tied weights, each with the name of the weight that it is tied to."""
    if (pairs := getattr(model, "all_tied_weights_keys", None)) is not None:
        return dict(pairs)  # since transformers 5
    names = getattr(model, "_tied_weights_keys", None) or ()
    if not names or not getattr(getattr(model, "config", None), "tie_word_embeddings", False):
        return {}
    embedding = model.get_input_embeddings().weight
    source = next((name for name, weight in model.named_parameters() if weight is embedding), None)
    return {name: source for name in names if name != source} if source else {}
