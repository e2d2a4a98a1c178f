"""A model from its config alone, on fake tensors: real shapes, dtypes and modules, without memory."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.models.sources.meta_layout import find_model_class
from pytest_llmmem.models.steps.fake_failures import failures_named
from pytest_llmmem.models.steps.torch_internals import from_config, tensors_by_name


@failures_named()
def build_on_meta(raw: Mapping[str, Any], *, dtype: str) -> Any:
    """The model that a config describes, on ``meta``. Raises ``StepError`` when the installed transformers does not build it."""
    import transformers

    try:
        config = transformers.CONFIG_MAPPING[raw["model_type"]].from_dict(dict(raw))
        model_class = find_model_class(transformers, config)
        with torch.device("meta"):
            model = from_config(model_class, config, dtype=getattr(torch, dtype))
    except RuntimeError:  # torch's, of a model that reads values while it is built
        raise
    except Exception as error:  # noqa: BLE001 -- configs of others raise anything
        why = f"KeyError: {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        msg = (
            f"transformers {transformers.__version__} builds no model from this config ({why}): name the config.json of a "
            "model that it knows"
        )
        raise StepError(msg) from None
    return model


def make_fake(model: nn.Module) -> None:
    """Replace tensors on ``meta`` with fake tensors on the CPU; tied weights stay tied.

    Must run inside of a ``FakeTensorMode``, in which ``Module.to_empty`` cannot swap parameters.
    """
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for module in model.modules():
        for tensors in tensors_by_name(module):
            for name, old in tensors.items():
                if old is None or old.device.type != "meta":
                    continue
                if id(old) not in made:
                    new = torch.empty(old.shape, dtype=old.dtype, device="cpu")
                    if isinstance(old, nn.Parameter):
                        new = nn.Parameter(new, requires_grad=old.requires_grad)
                    made[id(old)] = old, new
                tensors[name] = made[id(old)][1]
