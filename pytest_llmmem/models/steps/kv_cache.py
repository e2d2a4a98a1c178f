"""The size of the cache of keys and values, calculated from a config.

A layer keeps 2 * batch * kv_heads * head_dim elements for each token. The number of tokens, and the bytes of an element,
depend on the kind of cache. The formulas follow ``transformers.cache_utils`` 5.23, and the layouts of optimum-quanto 0.2.7 and
hqq 0.2.8. The last generated token has no keys yet.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.models.steps.spec import GenerateSpec

_COUNTER_BYTES: Final = 8
"""An int64 of each layer with a window, and of each static one: the window, or the number of tokens."""

_SCALE_BYTES: Final = 4
"""A float32 for the keys of a layer in 8-bit floating point, and another for its values."""

_DEFAULTS: Final = {
    "backend": "quanto", "nbits": 4, "axis_key": 0, "axis_value": 0, "q_group_size": 64, "residual_length": 128
}  # fmt: skip
"""Settings of a quantized cache, of which ``cache_config`` has some."""

_PACKED: Final = {1: (8, 1), 2: (4, 1), 3: (10, 4), 4: (2, 1), 8: (1, 1)}
"""Values in one packed integer, and its bytes, by the bits of a value."""


def cache_bytes(raw: Mapping[str, Any], step: GenerateSpec, *, dtype: str) -> int:
    """The most bytes that the cache holds while text is generated. Raises ``StepError`` where there is no formula."""
    import transformers

    config = transformers.CONFIG_MAPPING[raw["model_type"]].from_dict(dict(raw)).get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        raise StepError("an encoder-decoder caches its encoder's keys too")
    if getattr(config, "kv_lora_rank", None):
        raise StepError("this model caches compressed keys")
    windows = _windows(config)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    elements, size = step.batch_size * int(heads) * int(head), 4 if dtype == "float32" else 2
    match step.cache_implementation:
        case None | "dynamic":
            return 2 * elements * size * _dynamic_tokens(windows, step) + _COUNTER_BYTES * sum(map(bool, windows))
        case "static":
            return 2 * elements * size * _static_tokens(windows, step) + _COUNTER_BYTES * len(windows)
        case "quantized":
            return 2 * len(windows) * _quantized_bytes(elements, step, size=size)
    raise StepError("an offloaded cache is in the host's memory, except for the layer in use and the next one")


def _windows(config: Any) -> Sequence[int | None]:
    """The most tokens that attention looks at, layer by layer; ``None``: all."""
    kinds = getattr(config, "layer_types", None)
    window, chunk = getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)
    if kinds is None:
        return [window or chunk] * config.num_hidden_layers
    limits = {"full_attention": None, "sliding_attention": window, "chunked_attention": chunk}
    if others := sorted(set(kinds) - set(limits)):
        msg = f"this model has layers of {', '.join(others)}"
        raise StepError(msg)
    return [limits[kind] for kind in kinds]


def _dynamic_tokens(windows: Sequence[int | None], step: GenerateSpec) -> int:
    """A layer with a window keeps a view of the whole prompt until the first new token."""
    length = step.seq_len - 1
    return max(len(windows) * step.prompt, sum(min(length, window or length) for window in windows))


def _static_tokens(windows: Sequence[int | None], step: GenerateSpec) -> int:
    """All tokens have a place from the beginning."""
    length = max(step.seq_len - 1, step.max_cache_len or 0)
    return sum(min(length, window or length) for window in windows)


def _quantized_bytes(elements: int, step: GenerateSpec, *, size: int) -> int:
    """Keys, or values, of one layer; ``elements`` of each token, of ``size`` bytes before they are quantized.

    Each time ``residual_length`` new tokens have been kept in full precision, they are quantized.
    """
    settings: dict[str, Any] = _DEFAULTS | dict(step.cache_config or {})
    if settings["backend"] == "fp8":
        return elements * (step.seq_len - 1) + _SCALE_BYTES
    if settings["axis_value"] != settings["axis_key"]:
        raise StepError("a cache with axis_key and axis_value that differ has no formula here")
    group: int = settings["q_group_size"]
    values, packed = _PACKED[settings["nbits"]]
    # quanto packs along the groups of axis 0, hqq across them
    packs_groups = (settings["backend"] == "quanto") == (settings["axis_key"] == 0)

    def held(new: int) -> int:
        rest: int = new % max(1, settings["residual_length"])
        quantized: int = elements * (step.prompt + new - rest)
        groups = quantized // group
        rows, columns = (groups, group) if packs_groups else (group, groups)
        scales = 2 * groups * size
        integers = -(-rows // values) * columns
        return integers * packed + scales + rest * elements * size

    return max(map(held, range(step.new_tokens)))
