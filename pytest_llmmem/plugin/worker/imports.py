"""Imports ahead of the tests: each worker would import these modules again, in seconds and hundreds of megabytes."""

import contextlib
import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from pytest_llmmem.models.loading.load_tracing import find_readers

_MODELLING: Final = "transformers.models.{0}.modeling_{0}"
_FOR_OPTIMIZERS: Final = "torch._dynamo"
"""Imported by the first call of any optimizer, and by torch.compile: 110 MB."""


def import_ahead(modules: Iterable[str], model_types: Sequence[str]) -> None:
    """Import it before the first test: in the fork server, or in a spawned worker before it is ready.

    ``modules`` are those of ``--llm-preload``; ``model_types`` of the checkpoints name the modelling code of transformers.
    """
    modelling = [_MODELLING.format(each) for each in model_types]
    for_loads = ("torch", "transformers", "accelerate", *modelling) if modelling else ()
    for_steps = (_FOR_OPTIMIZERS,) if modelling or "torch" in sys.modules else ()
    for name in (*modules, *for_loads, *for_steps):
        # what is missing or broken raises in the test that needs it
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    if not modelling:
        return
    with contextlib.suppress(Exception):
        import transformers

        _ = transformers.AutoModel, transformers.PreTrainedModel
        # the first load makes a table of renamed weights: 900 regular expressions, 0.1 s in a worker
        importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping(model_types[0])
    find_readers()
