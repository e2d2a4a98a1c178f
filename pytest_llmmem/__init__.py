"""Lock down how language models load: a pytest plugin that measures and guards each load in a worker of its own."""

from pytest_llmmem.core.errors import BaselineExceeded, BudgetExceeded, LlmmemError, WorkerCrashed

__all__ = ["BaselineExceeded", "BudgetExceeded", "LlmmemError", "WorkerCrashed"]
