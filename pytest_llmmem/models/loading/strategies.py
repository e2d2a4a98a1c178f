"""The built-in strategies, and finding one by its name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.loading.arguments import nearest
from pytest_llmmem.models.loading.engines import llama_cpp_call, load_llama_cpp
from pytest_llmmem.models.loading.offload import auto_arguments, load_offloaded, offload_arguments
from pytest_llmmem.models.loading.rank_strategies import RANK_STRATEGIES
from pytest_llmmem.models.loading.recipes import load_empty, load_naive, load_sharded
from pytest_llmmem.models.loading.request import Code, LoadRequest, installed
from pytest_llmmem.models.loading.strategy import Strategy, absent, needs


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
        close = nearest(name, names)
        meant = f"did you mean {close!r}? There are" if close else "write one of"
        msg = f"{name!r} is not a strategy: {meant} {', '.join(names)}, or register your own (pytest_llmmem_strategies)"
        raise ValueError(msg)
    return known[names.index(name)]


def _dtype(name: str, *, offered: bool) -> Strategy:
    return Strategy(
        name=name,
        summary=f"from_pretrained, every weight cast to {name}",
        dtype=name,
        load=lambda request: request.from_pretrained(dtype=name),
        call=lambda request: request.written(dtype=name),
        unavailable=needs(),
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


def _quantized(name: str, bits: int, **config: Any) -> Strategy:
    text = f"BitsAndBytesConfig({', '.join(f'{key}={value!r}' for key, value in config.items())})"

    def load(request: LoadRequest) -> Any:
        from transformers import BitsAndBytesConfig

        return request.from_pretrained(quantization_config=BitsAndBytesConfig(**config))

    return Strategy(
        name=name,
        summary=f"bitsandbytes, {bits} bits",
        bits=bits,
        load=load,
        call=lambda request: request.written(quantization_config=Code(text)),
        libraries=("accelerate", "bitsandbytes"),
        unavailable=_cannot_quantize,
    )


def _cannot_quantize(checkpoint: Checkpoint) -> str | None:
    if reason := needs("accelerate", "bitsandbytes")(checkpoint):
        return reason
    if installed("transformers") >= (4, 53) or _has_gpu():
        return None
    return "needs a GPU, or transformers 4.53 or newer, which quantizes on the processor too"


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
        unavailable=needs(),
    ),
    Strategy(
        name="sharded",
        summary="shard by shard into an initialized model",
        load=load_sharded,
        call=lambda request: (
            f"load_sharded_checkpoint({request.model_class.__name__}(config), {str(request.checkpoint.path)!r})"
        ),
        unavailable=needs(),
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
    Strategy(
        name="llama_cpp",
        summary="llama-cpp-python, of a GGUF file",
        load=load_llama_cpp,
        call=llama_cpp_call,
        libraries=("llama_cpp",),
        unavailable=lambda _: absent("llama_cpp"),
        only_format="gguf",
    ),
    _quantized("int8", 8, load_in_8bit=True),
    _quantized("nf4", 4, load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    _planned("offload", "half of the weights in memory, the rest on disk", offload_arguments),
    _dtype("float32", offered=False),
    Strategy(
        name="naive",
        summary="a random model, a full state dict, and a copy: everything twice",
        load=load_naive,
        call=lambda request: f"{request.model_class.__name__}(config).load_state_dict(state_dict)",
        unavailable=needs(),
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
    *RANK_STRATEGIES,
)

STRATEGIES: Final[Mapping[str, Strategy]] = {strategy.name: strategy for strategy in _BUILT_IN}
"""All strategies, in the order of ``llmmem try``: unchanged weights first, then fewer bits, then offloading to disk."""
