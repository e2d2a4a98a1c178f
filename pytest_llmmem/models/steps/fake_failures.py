"""The failure of a model on fake tensors as one sentence, read from its traceback."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch

from pytest_llmmem.core.errors import LlmmemError, StepError
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.steps.module_paths import ModulePaths
from pytest_llmmem.models.steps.torch_internals import OpOverload

_TORCH: Final = Path(torch.__file__).parent


def failed_operation(error: Exception) -> Any:
    """The dispatched operation that failed; ``None`` where Python code did, such as ``tensor.numpy()``."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if isinstance(func := frame.f_locals.get("func"), OpOverload):
            return func
    return None


def failed_module(error: Exception, paths: ModulePaths) -> str:
    """The path of the innermost module, also in its backward pass; empty for a failure outside of modules."""
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = paths.path_of(frame.f_locals.get("self")) or found
    return found


def sentence_of(error: Exception, *, operation: Any, module: str) -> str:
    """Name the operation, or the line where there is none, and the module, and offer the measured way."""
    where = f" in {module}" if module else ""
    why = excerpt(": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()).rstrip(".")))), limit=200)
    return (
        f"{operation or _line(error)}{where} fails on fake tensors, which have no values ({why}): measure the step instead, "
        "with the fixture train_step or generate_step, or training_memory around the loop"
    )


@contextlib.contextmanager
def failures_named() -> Iterator[None]:
    """Raise ``StepError`` for any failure in the block: a model that is built or prepared without values."""
    try:
        yield
    except LlmmemError:
        raise
    except Exception as error:
        sentence = sentence_of(error, operation=failed_operation(error), module=failed_module(error, ModulePaths()))
        raise StepError(sentence) from error


def _line(error: Exception) -> str:
    """The last line outside of torch."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if _TORCH not in Path(each.filename).parents] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}"
