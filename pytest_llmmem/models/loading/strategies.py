"""The strategies to load a checkpoint as a model, by name."""

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.model_config import read_config
from pytest_llmmem.models.loading import own_loader, residency
from pytest_llmmem.models.loading.distributed import (
    fsdp_call,
    load_fsdp,
    load_tensor_parallel,
    no_fsdp,
    no_tensor_parallel,
    tensor_parallel_call,
)
from pytest_llmmem.models.loading.loaded import LoadedModel
from pytest_llmmem.models.loading.offload import auto_arguments, load_offloaded, offload_arguments
from pytest_llmmem.models.loading.pipelines import PIPELINES, adapter_call, with_adapter
from pytest_llmmem.models.loading.recipes import load_empty, load_naive, load_sharded
from pytest_llmmem.models.loading.request import Code, LoadRequest, installed

__all__ = ["STRATEGIES", "LoadRequest", "Strategy", "find_strategy", "load_model", "loader_strategy", "needs"]


def needs(*libraries: str) -> Callable[[], str | None]:
    """A function for ``Strategy.unavailable``: names the first of these libraries, or transformers, that is not installed."""

    def missing() -> str | None:
        absent = [name for name in ("transformers", *libraries) if not installed(name)]
        return f"needs {' and '.join(absent)}: pip install {' '.join(absent)}" if absent else None

    return missing


_NEEDS_TRANSFORMERS: Final = needs()


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One way to load."""

    name: str
    """The name for ``--llm-load`` and ``@pytest.mark.llm_load``."""

    summary: str
    """One line for tables."""

    load: Callable[[LoadRequest], Any]
    """Loads and returns the model."""

    call: Callable[[LoadRequest], str] | None = None
    """The equivalent user code as text. ``None``: the ``from_pretrained`` call that was made, or ``load`` itself."""

    libraries: tuple[str, ...] = ()
    """Libraries imported before the load, so that their import does not count as its memory."""

    unavailable: Callable[[], str | None] = lambda: None
    """The reason that it is unavailable; ``None`` if it is available. Imports nothing that initializes an accelerator."""

    offered: bool = True
    """Whether ``llmmem try`` tries it."""

    merges_adapter: bool = False
    """Whether it merges an adapter's weights into the base model's."""
    needs_ranks: bool = False
    """Whether it spreads the model over several processes: ``--llm-ranks`` sets their number."""


def find_strategy(name: str, own: Sequence[Strategy]) -> Strategy:
    """The strategy with that name, built in or a team's own.

    Raises ``ValueError`` for an unknown name, and for a name that occurs twice.
    """
    known = [*STRATEGIES.values(), *own]
    names = [strategy.name for strategy in known]
    if twice := {each for each in names if names.count(each) > 1}:
        msg = f"there are two strategies called {' and '.join(sorted(twice))}: give your own another name"
        raise ValueError(msg)
    if name not in names:
        msg = f"{name!r} is not a strategy: write one of {', '.join(names)}, or register your own (pytest_llmmem_strategies)"
        raise ValueError(msg)
    return known[names.index(name)]


def loader_strategy(function: own_loader.Loader, options: Mapping[str, Any] | None = None) -> Strategy:
    """A strategy that calls a function of the user's own; ``options`` are its further arguments."""
    arguments = options or {}

    def load(request: LoadRequest) -> Any:
        __tracebackhide__ = True
        return own_loader.call_loader(function, request, arguments)

    return Strategy(
        name=own_loader.name_of(function),
        summary="a loader of your own",
        load=load,
        call=lambda request: own_loader.written_call(function, request, arguments),
    )


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
    if config.class_names or config.model_type or request.checkpoint.kind in PIPELINES:
        # without the class, the load itself raises; a loader of the user's own may not need it
        with contextlib.suppress(CheckpointError):
            yield request.model_class.__module__


def _called(request: LoadRequest, strategy: Strategy) -> str:
    """The call that a strategy of the user's own made."""
    if request.calls:
        return request.written(**request.calls[-1])
    return own_loader.written_call(strategy.load, request, {})


def _dtype(name: str, *, offered: bool) -> Strategy:
    return Strategy(
        name=name,
        summary=f"from_pretrained, every weight cast to {name}",
        load=lambda request: request.from_pretrained(dtype=name),
        call=lambda request: request.written(dtype=name),
        unavailable=_NEEDS_TRANSFORMERS,
        offered=offered,
    )


def _planned(name: str, summary: str, plan: Callable[[LoadRequest], dict[str, Any]]) -> Strategy:
    return Strategy(
        name=name,
        summary=summary,
        load=lambda request: load_offloaded(request, plan(request)),
        call=lambda request: request.written(**plan(request) | {"offload_folder": "offload"}),
        libraries=("accelerate",),
        unavailable=needs("accelerate"),
    )


def _quantized(name: str, summary: str, **config: Any) -> Strategy:
    text = f"BitsAndBytesConfig({', '.join(f'{key}={value!r}' for key, value in config.items())})"

    def load(request: LoadRequest) -> Any:
        from transformers import BitsAndBytesConfig

        return request.from_pretrained(quantization_config=BitsAndBytesConfig(**config))

    return Strategy(
        name=name,
        summary=summary,
        load=load,
        call=lambda request: request.written(quantization_config=Code(text)),
        libraries=("accelerate", "bitsandbytes"),
        unavailable=_cannot_quantize,
    )


def _cannot_quantize() -> str | None:
    if reason := needs("accelerate", "bitsandbytes")():
        return reason
    if installed("transformers") >= (4, 53) or _has_gpu():
        return None
    return "needs a GPU, or transformers 4.53 or newer, which quantises on the processor too"


def _has_gpu() -> bool:
    import torch

    # asks the driver, not the runtime: a process that will fork must not initialize CUDA
    return bool(torch.cuda.device_count())


_BUILT_IN: Final = (
    Strategy(
        name="default",
        summary="from_pretrained and nothing else",
        load=LoadRequest.from_pretrained,
        call=LoadRequest.written,
        unavailable=_NEEDS_TRANSFORMERS,
    ),
    Strategy(
        name="sharded",
        summary="shard by shard into an initialised model",
        load=load_sharded,
        call=lambda request: (
            f"load_sharded_checkpoint({request.model_class.__name__}(config), {str(request.checkpoint.path)!r})"
        ),
        unavailable=_NEEDS_TRANSFORMERS,
    ),
    Strategy(
        name="empty",
        summary="a model without memory, filled by load_checkpoint_in_model",
        load=load_empty,
        call=lambda request: (
            f"load_checkpoint_in_model(model, {str(request.checkpoint.path)!r}, "
            f"device_map={{'': {request.device or 'cpu'!r}}})"
        ),
        libraries=("accelerate",),
        unavailable=needs("accelerate"),
    ),
    _planned("auto", "device_map='auto' within the memory that there is here", auto_arguments),
    _dtype("bfloat16", offered=True),
    _dtype("float16", offered=True),
    _quantized("int8", "bitsandbytes, 8 bits", load_in_8bit=True),
    _quantized("nf4", "bitsandbytes, 4 bits", load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    _planned("offload", "half of the weights in memory, the rest on disk", offload_arguments),
    _dtype("float32", offered=False),
    Strategy(
        name="naive",
        summary="a random model, a full state dict, and a copy: everything twice",
        load=load_naive,
        call=lambda request: f"{request.model_class.__name__}(config).load_state_dict(state_dict)",
        unavailable=_NEEDS_TRANSFORMERS,
        offered=False,
    ),
    Strategy(
        name="merge",
        summary="from_pretrained, and an adapter merged into the weights",
        load=LoadRequest.from_pretrained,
        call=LoadRequest.written,
        unavailable=needs("peft"),
        offered=False,
        merges_adapter=True,
    ),
    Strategy(
        name="tensor_parallel",
        summary="each rank holds its part of every layer",
        load=load_tensor_parallel,
        call=tensor_parallel_call,
        libraries=("accelerate",),
        unavailable=no_tensor_parallel,
        offered=False,
        needs_ranks=True,
    ),
    Strategy(
        name="fsdp",
        summary="each rank holds its part of every weight, and gathers a layer to run it",
        load=load_fsdp,
        call=fsdp_call,
        libraries=("accelerate",),
        unavailable=no_fsdp,
        offered=False,
        needs_ranks=True,
    ),
)

STRATEGIES: Final[Mapping[str, Strategy]] = {strategy.name: strategy for strategy in _BUILT_IN}
"""All strategies, in the order of ``llmmem try``: unchanged weights first, then fewer bits, then offloading to disk."""
