"""The storage tracker for fake tensors, which have no values to read."""

from typing import Any, Final

import torch
from torch.utils.weak import WeakIdKeyDictionary

from pytest_llmmem.core.errors import LlmmemError, StepError
from pytest_llmmem.models.steps.fake_failures import failed_module, failed_operation, sentence_of
from pytest_llmmem.models.steps.torch_internals import (
    IS_NONZERO,
    VALUE_OF,
    DataDependentOutputException,
)
from pytest_llmmem.models.steps.tracker import StorageTracker

_MOST_VALUES: Final = 50_000
"""Values of one prediction: ``tolist()`` asks for each of a tensor's, a loop that never ends for one each time."""


class FakeStorageTracker(StorageTracker):
    """Supplies values for ``loss.item()`` or ``mask.all()``: a mask is full, no sequence has ended, a number is 1.

    Raises ``StepError``, with the operation and the module, for a model that fails on fake tensors. Mistakes of a loop around
    the model pass as they are.
    """

    def __init__(self, *watched: Any, **options: Any) -> None:
        super().__init__(*watched, **options)
        self._full_masks: Any = WeakIdKeyDictionary()
        """Results of ``all()``."""
        self._values_asked = 0

    def run_operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        try:
            result = func(*args, **kwargs)
        except DataDependentOutputException:
            if func not in {VALUE_OF, IS_NONZERO}:
                raise
            return self._value_of(args[0])
        if func.overloadpacket is torch.ops.aten.all:
            self._full_masks[result] = True
        return result

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        super().__exit__(kind, error, traceback)
        if not isinstance(error, Exception) or isinstance(error, LlmmemError):
            return
        operation, module = failed_operation(error), failed_module(error, self.paths)
        if operation is not None:
            module = module or self.last_module  # of torch's own backward there is no frame
        is_torch_s = isinstance(error, RuntimeError)  # as of logits.numpy() in a loop
        if operation or module or is_torch_s:
            raise StepError(sentence_of(error, operation=operation, module=module)) from error

    def _value_of(self, asked: torch.Tensor) -> bool | float:
        self._values_asked += 1
        if self._values_asked > _MOST_VALUES:
            msg = f"more than {_MOST_VALUES:,} values were asked for: a loop that ends by a value does not end"
            raise RuntimeError(msg)
        if asked.dtype == torch.bool:
            return asked in self._full_masks
        return 1.0 if asked.is_floating_point() else 1
