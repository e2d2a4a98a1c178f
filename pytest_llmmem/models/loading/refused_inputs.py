"""Whether a forward pass failed for its inputs, and not for how the model was loaded."""

from collections.abc import Mapping
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any, Final

_OF_PYTHON: Final = (TypeError, ValueError, AttributeError)
"""Errors of a model's Python code for its inputs. torch raises ``RuntimeError`` for tensors that do not fit together."""


def refuses(model: Any, inputs: Mapping[str, Any], error: Exception) -> bool:
    """Whether the inputs are at fault for this error of ``model(**inputs)``.

    They are if a model of the same class, config and dtype without weights raises such an error at the same line. Nothing of the
    load is in that model: no missing weight, no weight of another shape, dtype or device, no quantization. If it fails elsewhere,
    as it does where the code depends on values, an error of Python's own types is taken for one of the inputs.
    """
    if "meta" in str(error):  # a weight that the load left without numbers
        return False
    import torch

    try:
        with torch.device("meta"), torch.inference_mode():
            twin = type(model)._from_config(model.config, torch_dtype=model.dtype).eval()  # noqa: SLF001 -- no public name
            twin(**{name: value.to("meta") for name, value in inputs.items()})
    except Exception as other:  # noqa: BLE001 -- any class has its own
        if type(other) is type(error) and _place(other.__traceback__) == _place(error.__traceback__):
            return True
        return isinstance(error, _OF_PYTHON)
    return False


def _place(traceback: TracebackType | None) -> tuple[str, int] | None:
    """The innermost file and line that are not torch's own: kernels and their checks are others for a model without weights."""
    import torch

    library = str(Path(torch.__file__).parent)
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(traceback)]
    return next((place for place in reversed(frames) if not place[0].startswith(library)), None)
