"""The tensor parallel plan of a class of transformers: which weights it splits, and over how many ranks it can."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_HEADS: Final = {
    "q_proj": "num_attention_heads",
    "query_key_value": "num_attention_heads",
    "k_proj": "num_key_value_heads",
    "v_proj": "num_key_value_heads",
}
"""Projections whose output is whole heads, each with the config's number of them."""


def plan_of(model: Any) -> Mapping[str, str]:
    """How weights are split, by the name of their module or their own, with ``*`` for the number of a layer.

    It is what the class declares, and what the load has made of it: transformers 4.57 to 5.6 forgets the class's own rules.
    Empty for a class without a plan.
    """
    return {**(getattr(type(model), "_tp_plan", None) or {}), **(getattr(model, "_tp_plan", None) or {})}


def is_split(plan: Mapping[str, str], name: str, weight: Any) -> bool:
    """Whether the plan gives each rank a part of this parameter."""
    generic = re.sub(r"\.\d+(?=\.|$)", ".*", name)
    style = plan.get(generic) or plan.get(generic.rpartition(".")[0], "")
    return "colwise" in style or ("rowwise" in style and weight.ndim > 1)  # a bias is added to the sum of the rows


def undivided_heads(config: Any, ranks: int) -> tuple[int, ...]:
    """The numbers of attention heads that a plan splits, of queries and of keys, unless they all are multiples of ``ranks``."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    heads = {
        number
        for name, style in (getattr(text, "base_model_tp_plan", None) or {}).items()
        if style == "colwise" and (attribute := _HEADS.get(name.rpartition(".")[2]))
        for number in _numbers(getattr(text, attribute, None) or getattr(text, "num_attention_heads", None))
    }
    return tuple(sorted(heads)) if any(number % ranks for number in heads) else ()


def _numbers(heads: Any) -> Sequence[int]:
    """One number for all layers, or one for each."""
    if isinstance(heads, int):
        return (heads,)
    return [each for each in heads if isinstance(each, int)] if isinstance(heads, list | tuple) else ()
