"""The storage tracker for fake tensors, which have no values to read."""

from typing import Any

import torch

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.models.steps.torch_internals import (
    IS_NONZERO,
    NOT_FAKEABLE,
    VALUE_OF,
    DataDependentOutputException,
)
from pytest_llmmem.models.steps.tracker import StorageTracker


class FakeStorageTracker(StorageTracker):
    """Supplies values for ``loss.item()`` or ``mask.all()``: a mask is full, no sequence has ended, a number is 1.

    Raises ``StepError``, with the module, for an operation that fake tensors do not support.
    """

    def __init__(self, *watched: Any, **options: Any) -> None:
        super().__init__(*watched, **options)
        self._full_masks: set[int] = set()
        """Results of ``all()``, by identity."""

    def run_operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        try:
            result = func(*args, **kwargs)
        except DataDependentOutputException:
            if func not in {VALUE_OF, IS_NONZERO}:
                raise
            asked = args[0]
            if asked.dtype == torch.bool:
                return id(asked) in self._full_masks
            return 1.0 if asked.is_floating_point() else 1
        if func.overloadpacket is torch.ops.aten.all:
            self._full_masks.add(id(result))
        return result

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        super().__exit__(kind, error, traceback)
        # an operation of one's own without a fake kernel raises a plain RuntimeError
        is_own = isinstance(error, RuntimeError) and getattr(self.last_op, "namespace", "aten") not in {"aten", "prim"}
        if is_own or isinstance(error, NOT_FAKEABLE):
            where = f" in {self.last_module}" if self.last_module else ""
            msg = (
                f"{self.last_op}{where} cannot be followed without real numbers ({type(error).__name__}): measure the step "
                "instead, with the fixture train_step or generate_step, or training_memory around the loop"
            )
            raise StepError(msg) from None
