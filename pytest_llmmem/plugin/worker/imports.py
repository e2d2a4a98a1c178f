"""What every test that loads a model would import anew: seconds, and hundreds of megabytes that are not the load's."""

import contextlib
import importlib
from collections.abc import Iterable
from typing import Final

from pytest_llmmem.models.loading.load_tracing import find_readers

_MODELLING: Final = "transformers.models.{0}.modeling_{0}"


def import_ahead(model_types: Iterable[str]) -> None:
    """Import it before the first test: in the fork server, or in a spawned worker before it is ready."""
    modelling = [_MODELLING.format(each) for each in model_types]
    if not modelling:
        return
    for name in ("torch", "transformers", "accelerate", *modelling):
        # what is missing or broken raises in the test that needs it
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    with contextlib.suppress(Exception):
        import transformers

        _ = transformers.AutoModel, transformers.PreTrainedModel
    find_readers()
