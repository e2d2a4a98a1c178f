"""Small models of every type that transformers knows: its default config with fewer layers, experts and narrower layers."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_LAYERS: Final = {r"(?:\w+_)?(?:num_|n_)?(?:\w+_)?layers?|n_layers?|depth|(?:\w+_)?num_blocks": 2}
_EXPERTS: Final = {
    r"(?:\w+_)?(?:num|n)_(?:\w+_)?experts|moe_num_experts|num_local_experts": 8,
    r"num_experts_per_tok(?:en)?|moe_k|moe_topk|(?:\w+_)?top_?k|(?:\w+_)?experts_top_k": 2,
    r"n_group|topk_group": 1,
}
_WIDTHS: Final = {
    r"(?:\w+_)?hidden_(?:size|dim)|d_model|n_embd|embed_dim|embedding_size|dim": 64,
    r"(?:\w+_)?intermediate_size|(?:\w+_)?ffn_dim|d_ff|d_inner|ffn_hidden_size|mlp_dim": 128,
    r"(?:\w+_)?(?:num_)?(?:attention_)?heads|n_head|(?:\w+_)?attention_heads|num_key_value_heads": 4,
    r"head_dim|d_kv|rotary_dim|qk_rope_head_dim|qk_nope_head_dim|v_head_dim": 16,
}
_WORDS: Final = {r"vocab_size": 4096, r"(?:\w+_)?token_(?:id|index)": 100}
_REST: Final = {
    r"max_position_embeddings|n_positions|max_seq_len": 2048,
    r"(?:\w+_)?moe_intermediate_size|expert_ffn_hidden_size": 256,
}

SHRINKINGS: Final = (
    _LAYERS | _EXPERTS | _WIDTHS | _REST,
    _LAYERS | _EXPERTS | _WORDS | _REST | {r"intermediate_size": 1024},
    {next(iter(_LAYERS)): 9} | _EXPERTS | _WIDTHS | _WORDS | _REST,
    _LAYERS | _EXPERTS | _REST,
    {},
)
"""From small to as it is. A narrow model of some types is no model, a model of two layers of others has no attention."""

_ROPE: Final = {"rope_type": "default", "rope_theta": 10000.0}
_MISSING: Final[Mapping[str, Mapping[str, Any]]] = {
    **{key: {"prediction_length": 8} for key in ("autoformer", "informer", "time_series_transformer")},
    **{
        key: {"rope_parameters": _ROPE | {"partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}}
        for key in ("glm4v_text", "glm4v_moe_text", "glm46v_text", "glm_image_text")
    },
    **{
        key: {"rope_parameters": _ROPE | {"mrope_section": [2, 3, 3]}}
        for key in ("qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text")
    },
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1]},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "granitemoehybrid": {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]},
    "xmod": {"default_language": "en_XX"},
}
"""What a small model of the type needs to run, and its defaults do not say."""

MOST_PARAMETERS: Final = 120_000_000


def small_configs(config_class: Any) -> Iterator[Any]:
    """Configs of that class, the smallest first; those that cannot be made are left out."""
    for caps in SHRINKINGS:
        try:
            yield _shrunk(config_class(**_missing(config_class)), caps)
        except Exception:  # noqa: BLE001 -- any class checks its sizes in its own way
            continue


def _shrunk(default: Any, caps: Mapping[str, int]) -> Any:
    changes = _missing(type(default))
    for name, value in vars(default).items():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            changes[name] = _shrunk(value, caps)
        elif type(value) is int and value > 0:
            limits = [limit for pattern, limit in caps.items() if re.fullmatch(pattern, name)]
            if limits and min(limits) < value:
                changes[name] = min(limits)
    return type(default)(**changes)


def _missing(config_class: Any) -> dict[str, Any]:
    return dict(_MISSING.get(config_class.model_type, {}))
