"""A load by DeepSpeed: ZeRO stage 3, which partitions every weight over the ranks."""

from typing import Any, Final

from pytest_llmmem.models.loading.request import LoadRequest

_ENGINE: Final = "_zero_engine"


def load_zero3(request: LoadRequest) -> Any:
    """Load with ``from_pretrained`` under DeepSpeed's config: each rank keeps its part of every weight."""
    import deepspeed
    from transformers.integrations import HfDeepSpeedConfig

    config = _config(request)
    active = HfDeepSpeedConfig(config)  # from_pretrained partitions as long as this object lives
    model = request.from_pretrained()
    del active
    # a plain attribute: as a submodule it would contain its own model; without it the hooks that gather weights go
    vars(model)[_ENGINE] = deepspeed.initialize(model=model, config=config)[0]
    return model.eval()


def zero3_call(request: LoadRequest) -> str:
    """The call of ``load_zero3`` as text."""
    return f"{request.written()} under HfDeepSpeedConfig({_config(request)!r})"


def _config(request: LoadRequest) -> dict[str, Any]:
    """Stage 3, in the dtype that is loaded: DeepSpeed makes float32 weights unless its config names another one."""
    dtype = request.dtype_name or request.checkpoint.dtype
    enabled = {name: {"enabled": True} for name, of in (("bf16", "bfloat16"), ("fp16", "float16")) if of == dtype}
    return {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}, **enabled}
