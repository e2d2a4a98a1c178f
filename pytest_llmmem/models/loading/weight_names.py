"""The model's weight for each tensor of its checkpoint.

transformers 5 renamed some weights, such as ``embed_out`` to ``lm_head``, and translates the names on disk only
inside of ``from_pretrained``. ``load_state_dict`` and accelerate do not, so recipes that use those translate here.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.core.printable import some_of
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint


def places(checkpoint: Checkpoint, model: Any) -> dict[str, str]:
    """The model's name for each tensor of the checkpoint that it uses. ``from_pretrained`` drops the others too.

    Raises ``CheckpointError`` when a tensor of the model would get no values. The tensors of a damaged shard are
    unknown; reading the shard raises.
    """
    rename = renaming(model)
    tensors = model.state_dict(keep_vars=True)
    found: dict[str, str] = {}
    for tensor in checkpoint.tensors:
        place = next(
            (name for name in _candidates(rename, tensor.name, model.base_model_prefix) if name in tensors), None
        )
        if place is not None:
            found[tensor.name] = place
    filled = {id(tensors[name]) for name in found.values()}  # a tied weight is filled under any of its names
    optional = model._keys_to_ignore_on_load_missing or ()  # noqa: SLF001 -- from_pretrained's own list; it has no public name
    empty = [
        name
        for name, tensor in tensors.items()
        if id(tensor) not in filled and not any(re.search(pattern, name) for pattern in optional)
    ]
    if empty and not checkpoint.missing and not checkpoint.truncated:
        raise _without_numbers(
            checkpoint, model, empty, unused=[t.name for t in checkpoint.tensors if t.name not in found]
        )
    return found


def _candidates(rename: Callable[[str], str], name: str, prefix: str) -> Iterator[str]:
    """Possible names in the model.

    A task's model has its base model under a prefix, and either may load a checkpoint of the other.
    """
    for renamed in (rename(name), name):
        yield from (renamed, f"{prefix}.{renamed}", renamed.removeprefix(f"{prefix}."))


def renaming(model: Any) -> Callable[[str], str]:
    """The installed version's translation of names; none before version 5."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming
    except ImportError:
        return str
    renamings = [each for each in get_model_conversion_mapping(model) if isinstance(each, WeightRenaming)]

    def rename(name: str) -> str:
        for renaming in renamings:
            name, _ = renaming.rename_source_key(name)
        return name

    return rename


def _without_numbers(checkpoint: Checkpoint, model: Any, empty: list[str], *, unused: list[str]) -> CheckpointError:
    return CheckpointError(
        f"--llm-model={checkpoint.source}: {len(empty)} of the tensors of {type(model).__name__} are not in the checkpoint under "
        f"any name that is known ({some_of(empty)}); it has {some_of(unused) or 'none'} to spare: load_state_dict merges and "
        "converts nothing, so load with the strategy 'default'"
    )
