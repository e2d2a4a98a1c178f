"""A program that reads a ``config.json`` of any transformers model and prints its tensors: names, dtypes and shapes.

It is a separate program because it imports torch, which must never happen in the process that forks the workers.
It is run by its path, and so imports nothing of this project.
"""

import json
import sys
from typing import Any

_DATA_BYTES = 8 * 2**30
"""Memory limit of the program. A model of 40,000 modules takes 0.5 GB; one with endless layers would take everything."""


def main() -> None:
    """Read a config from the standard input, and print its model's class and tensors as the last line of the output."""
    limit_memory()
    sys.stdout.write("\n" + json.dumps(describe(json.load(sys.stdin))))


def limit_memory() -> None:
    """Limit the memory of this process to more than any model without weights needs."""
    if sys.platform == "win32":
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or most > _DATA_BYTES:
        resource.setrlimit(resource.RLIMIT_DATA, (_DATA_BYTES, most))


def describe(raw: dict[str, Any]) -> dict[str, Any]:
    """The architecture and the tensors that ``save_pretrained`` would write: ``(name, dtype, shape)``, ``None`` for any float.

    The model is built without memory.
    """
    import torch
    import transformers

    config = transformers.CONFIG_MAPPING[raw["model_type"]].from_dict(raw)
    # other implementations may be code from the Hub; none changes a tensor
    config._attn_implementation = "eager"  # noqa: SLF001 -- there is no public name
    model_class = find_model_class(transformers, config)
    with torch.device("meta"):
        model = model_class(config)
    tensors = [
        (name, None if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in _on_disk(model).items()
    ]
    return {"architecture": model_class.__name__, "tensors": tensors}


def find_model_class(transformers: Any, config: Any) -> Any:
    """The class that ``architectures`` names, or else the most specific known class for this kind of config."""
    for name in config.architectures or ():
        found = getattr(transformers, name, None)
        if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
            msg = f"{name} is no model of transformers {transformers.__version__}"
            raise LookupError(msg)  # noqa: TRY004 -- the name is wrong, not a type of ours
        return found
    kinds = ("MODEL_FOR_CAUSAL_LM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM", "MODEL_FOR_MASKED_LM", "MODEL")
    for kind in kinds:
        classes = getattr(transformers, f"{kind}_MAPPING")
        if type(config) in classes:
            return classes[type(config)]
    msg = f"no model class is known for {type(config).__name__}: name one in 'architectures'"
    raise LookupError(msg)


def _on_disk(model: Any) -> dict[str, Any]:
    """The state dict as it is saved: tied weights once, with the names of the architecture's checkpoints."""
    once: dict[int, tuple[str, Any]] = {}
    ignored = set(model._keys_to_ignore_on_save or ())  # noqa: SLF001 -- as save_pretrained does; there is no public name
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name not in ignored:
            once.setdefault(id(tensor), (name, tensor))
    state = dict(once.values())
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # in transformers 4 the model's names are those on disk
        return state
    return dict(revert_weight_conversion(model, state))


if __name__ == "__main__":
    main()
