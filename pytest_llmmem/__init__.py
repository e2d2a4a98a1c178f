"""Lock down how language models load: a pytest plugin that measures and guards each load in a worker of its own.

What is listed in ``__all__`` is the public API, documented in ``docs/python-api.md``. Nothing is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

from pytest_llmmem.core.errors import BaselineExceeded, BudgetExceeded, LlmmemError, WorkerCrashed

if TYPE_CHECKING:
    from pytest_llmmem.core.growth import MemoryGrowth
    from pytest_llmmem.core.readings import Peak
    from pytest_llmmem.core.records import SessionRecord, TestRecord
    from pytest_llmmem.diagnosis import Diagnosis, Facts
    from pytest_llmmem.measuring.blocks import MemoryBudget, memory_budget
    from pytest_llmmem.measuring.growth import memory_growth
    from pytest_llmmem.measuring.measure import measure
    from pytest_llmmem.measuring.measurement import Measurement
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
    from pytest_llmmem.models.loading.loaded import LoadedModel
    from pytest_llmmem.models.loading.request import LoadRequest
    from pytest_llmmem.models.loading.strategy import Strategy

    __version__: str

__all__ = [
    "BaselineExceeded",
    "BudgetExceeded",
    "Checkpoint",
    "Diagnosis",
    "Facts",
    "LlmmemError",
    "LoadRequest",
    "LoadedModel",
    "Measurement",
    "MemoryBudget",
    "MemoryGrowth",
    "Peak",
    "SessionRecord",
    "Strategy",
    "TestRecord",
    "WorkerCrashed",
    "__version__",
    "measure",
    "memory_budget",
    "memory_growth",
]

_HOMES: Final = {
    "Checkpoint": "models.checkpoints.checkpoint",
    "Diagnosis": "diagnosis",
    "Facts": "diagnosis",
    "LoadRequest": "models.loading.request",
    "LoadedModel": "models.loading.loaded",
    "Measurement": "measuring.measurement",
    "MemoryBudget": "measuring.blocks",
    "MemoryGrowth": "core.growth",
    "Peak": "core.readings",
    "SessionRecord": "core.records",
    "Strategy": "models.loading.strategy",
    "TestRecord": "core.records",
    "measure": "measuring.measure",
    "memory_budget": "measuring.blocks",
    "memory_growth": "measuring.growth",
}
"""The module of each name that is imported when it is first asked for."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pytest-llmmem")
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
