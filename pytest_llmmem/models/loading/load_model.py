"""Load a checkpoint by a strategy, measured."""

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.model_config import read_config
from pytest_llmmem.models.loading import own_loader, residency
from pytest_llmmem.models.loading.loaded import LoadedModel
from pytest_llmmem.models.loading.pipelines import PIPELINES, adapter_call, with_adapter
from pytest_llmmem.models.loading.request import LoadRequest, installed
from pytest_llmmem.models.loading.strategies import STRATEGIES
from pytest_llmmem.models.loading.strategy import Strategy


def load_model(
    request: LoadRequest, strategy: Strategy, measured: Callable[[], AbstractContextManager[Any]]
) -> LoadedModel:
    """Load with a strategy.

    ``measured`` is entered around the load alone: the class's module and the strategy's libraries are imported before.
    Its value has a ``peak`` after it has ended, ``None`` where nothing is measured.
    Raises ``CheckpointError`` for a checkpoint that cannot be loaded at all, and any error of the libraries.
    """
    __tracebackhide__ = True
    # a loader or a strategy of the user's own handles an adapter itself
    adapter = request.checkpoint.adapter if strategy.name in STRATEGIES else None
    if strategy.merges_adapter and adapter is None:
        msg = f"--llm-model={request.checkpoint.source}: 'merge' is for an adapter, and this is a model: load it with 'default'"
        raise CheckpointError(msg)
    for module in _modules(request, strategy):
        importlib.import_module(module)
    freed_before = residency.freed_nbytes()
    with measured() as spent:
        call = (
            strategy.call(request) if strategy.call else ""
        )  # planning may start an accelerator: it is a part of the load
        started = time.perf_counter()
        model = strategy.load(request)
        if adapter is not None:
            model = with_adapter(model, adapter, merged=strategy.merges_adapter)
        seconds = time.perf_counter() - started
    call = call or _called(request, strategy)
    if adapter is not None:
        call = adapter_call(call, adapter, merged=strategy.merges_adapter)
    freed = residency.freed_nbytes()
    kept = None if freed is None or freed_before is None else max(0, freed - freed_before)
    # the report of from_pretrained does not include later changes by a strategy of the user's own
    report = request.reports[-1] if request.reports and strategy.name in STRATEGIES else None
    return LoadedModel(
        model,
        request,
        load=strategy.name,
        call=call,
        seconds=seconds,
        peak=spent.peak,
        kept_bytes=kept,
        report=report,
    )


def _modules(request: LoadRequest, strategy: Strategy) -> Iterator[str]:
    """Modules that are imported before a load is measured."""
    yield from strategy.libraries
    if request.checkpoint.adapter is not None and installed("peft"):
        yield "peft"
    config = read_config(request.checkpoint.path)
    has_class = config.class_names or config.model_type or request.checkpoint.kind in PIPELINES
    is_by_class = strategy.name in STRATEGIES and strategy.only_format is None
    if has_class or (is_by_class and request.checkpoint.format in {"gguf", "onnx"}):
        # without the class, the load itself raises; a loader of the user's own may not need it
        with contextlib.suppress(CheckpointError):
            yield request.model_class.__module__


def _called(request: LoadRequest, strategy: Strategy) -> str:
    """The call that a strategy of the user's own made."""
    if request.calls:
        return request.written(**request.calls[-1])
    return own_loader.written_call(strategy.load, request, {})
