"""Models that ``synthetic:NAME`` knows by name: the ``config.json`` and the published shard size of each."""

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The config of a well-known model."""

    config: dict[str, Any]
    """Its ``config.json``, dtype included."""

    shard: str
    """The largest shard, in the form of ``save_pretrained(max_shard_size=...)``."""


def _gpt_neox(*, hidden: int, layers: int, heads: int, vocab: int) -> dict[str, Any]:
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": vocab,
        "max_position_embeddings": 2048,
        "rotary_pct": 0.5,
        "rotary_emb_base": 10000,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "torch_dtype": "float16",
    }


def _llama(
    *, hidden: int, wide: int, layers: int, heads: int, shared_heads: int, vocab: int, positions: int, dtype: str
) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": shared_heads,
        "vocab_size": vocab,
        "max_position_embeddings": positions,
        "rms_norm_eps": 1e-05,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": dtype,
    }


_LLAMA_3_1: Final = {
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}

PRESETS: Final = {
    "polyglot-ko-1.3b": Preset(config=_gpt_neox(hidden=2048, layers=24, heads=16, vocab=30080), shard="1GB"),
    "polyglot-ko-12.8b": Preset(config=_gpt_neox(hidden=5120, layers=40, heads=40, vocab=30080), shard="1GB"),
    # Size, vocabulary and number of shards of the Korean-English 7B of that name. The original needs code of its own, which a
    # synthetic checkpoint cannot include, so this one has the architecture of Llama.
    "midm-7b": Preset(
        config=_llama(
            hidden=4096,
            wide=10880,
            layers=32,
            heads=32,
            shared_heads=32,
            vocab=72192,
            positions=2048,
            dtype="float16",
        ),
        shard="10GB",
    ),
    "bert-base": Preset(
        config={
            "architectures": ["BertForMaskedLM"],
            "model_type": "bert",
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "vocab_size": 30522,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "torch_dtype": "float32",
        },
        shard="5GB",
    ),
    "llama-3.1-8b": Preset(
        config=_llama(
            hidden=4096,
            wide=14336,
            layers=32,
            heads=32,
            shared_heads=8,
            vocab=128256,
            positions=131072,
            dtype="bfloat16",
        )
        | _LLAMA_3_1,
        shard="5GB",
    ),
    "llama-3.1-70b": Preset(
        config=_llama(
            hidden=8192,
            wide=28672,
            layers=80,
            heads=64,
            shared_heads=8,
            vocab=128256,
            positions=131072,
            dtype="bfloat16",
        )
        | _LLAMA_3_1,
        shard="5GB",
    ),
    "tiny-llama": Preset(
        config=_llama(
            hidden=64,
            wide=128,
            layers=4,
            heads=4,
            shared_heads=2,
            vocab=512,
            positions=256,
            dtype="bfloat16",
        ),
        shard="1GB",
    ),
    "tiny-neox": Preset(config=_gpt_neox(hidden=64, layers=4, heads=4, vocab=512), shard="1GB"),
}
