"""The weights behind an error of transformers 5 about shapes: its text refers to a report that it has logged."""

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

from pytest_llmmem.core.errors import CheckpointError

if TYPE_CHECKING:
    from pytest_llmmem.models.loading.request import LoadRequest


@contextlib.contextmanager
def naming_mismatches(request: "LoadRequest") -> Generator[None]:
    """Raise ``CheckpointError`` with the names and shapes in place of the library's ``RuntimeError``."""
    __tracebackhide__ = True
    try:
        yield
    except RuntimeError as error:
        if "`ignore_mismatched_sizes`" not in str(error) or not (found := _mismatches(request)):
            raise
        first, count = found[0], len(found)
        more = f", and {count - 1} more" if count > 1 else ""
        msg = (
            f"--llm-model={request.checkpoint.source}: {first}{more}: fetch the config.json of these weights, or pass "
            "ignore_mismatched_sizes=True to initialize them anew"
        )
        raise CheckpointError(msg) from None


def _mismatches(request: "LoadRequest") -> list[str]:
    """Each weight with its shape in the file and in a model that is built from the config."""
    import torch

    from pytest_llmmem.models.loading.fidelity import compare, named_tensors

    with torch.device("meta"):
        model = request.initialized()
    shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(model)}
    stored = {each.name: each.shape for each in request.checkpoint.tensors}
    return [
        f"{name} is {stored[name]} in the file, and {shapes.get(name, 'another shape')} by config.json"
        for name in compare(request.checkpoint, model).mismatched
    ]
