"""The synthetic checkpoints that the regressions are shown on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

NEOX: Final[Mapping[str, Any]] = {
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "vocab_size": 50304,
    "max_position_embeddings": 2048,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MIXTRAL: Final[Mapping[str, Any]] = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 512,
    "intermediate_size": 1792,
    "num_hidden_layers": 16,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 8192,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-05,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
LLAMA: Final[Mapping[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 20,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}
SPREAD: Final[Mapping[str, Any]] = LLAMA | {"num_hidden_layers": 12, "torch_dtype": "bfloat16"}
BERT: Final[Mapping[str, Any]] = {
    "architectures": ["BertForMaskedLM"],
    "model_type": "bert",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A synthetic checkpoint."""

    name: str
    config: Mapping[str, Any]
    dtype: str = "bfloat16"
    shard: str = "200MB"
    """The largest file, as ``llmmem synth --shard`` takes it."""
    format: Literal["safetensors", "bin"] = "safetensors"
    gguf: bool = False
    """Whether there is a GGUF file, too."""
