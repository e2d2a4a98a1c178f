"""The tensors of well-known architectures, worked out from ``config.json`` alone, named as their checkpoints name them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

Config = Mapping[str, Any]
Named = Iterator[tuple[str, tuple[int, ...]]]


def layout(config: Config) -> dict[str, tuple[int, ...]] | None:
    """Shapes by tensor name, in the model's order.

    ``None`` when the architecture is not one of these, or when the config leaves a size to its class's defaults:
    then only transformers knows.
    """
    architecture = next(iter(config.get("architectures") or ()), None)
    if architecture not in _LAYOUTS:
        return None
    try:
        return dict(_LAYOUTS[architecture](config))
    except KeyError:
        return None


def _gpt_neox(config: Config) -> Named:
    hidden, wide, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    attention_bias = config.get("attention_bias", True)
    yield "gpt_neox.embed_in.weight", (vocab, hidden)
    for number in range(config["num_hidden_layers"]):
        layer = f"gpt_neox.layers.{number}"
        yield from _norm(f"{layer}.input_layernorm", hidden)
        yield from _norm(f"{layer}.post_attention_layernorm", hidden)
        yield from _linear(f"{layer}.attention.query_key_value", hidden, 3 * hidden, bias=attention_bias)
        yield from _linear(f"{layer}.attention.dense", hidden, hidden, bias=attention_bias)
        yield from _linear(f"{layer}.mlp.dense_h_to_4h", hidden, wide, bias=True)
        yield from _linear(f"{layer}.mlp.dense_4h_to_h", wide, hidden, bias=True)
    yield from _norm("gpt_neox.final_layer_norm", hidden)
    if not config.get("tie_word_embeddings", False):
        yield "embed_out.weight", (vocab, hidden)


def _llama(config: Config) -> Named:
    bias = config.get("attention_bias", False)
    return _llama_like(config, qkv_bias=bias, output_bias=bias)


def _mistral(config: Config) -> Named:
    return _llama_like(config, qkv_bias=False, output_bias=False)


def _qwen2(config: Config) -> Named:
    return _llama_like(config, qkv_bias=True, output_bias=False)


def _llama_like(config: Config, *, qkv_bias: bool, output_bias: bool) -> Named:
    hidden, wide, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, shared_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim") or hidden // heads
    mlp_bias = config.get("mlp_bias", False)
    yield "model.embed_tokens.weight", (vocab, hidden)
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        yield from _linear(f"{layer}.self_attn.q_proj", hidden, heads * head, bias=qkv_bias)
        yield from _linear(f"{layer}.self_attn.k_proj", hidden, shared_heads * head, bias=qkv_bias)
        yield from _linear(f"{layer}.self_attn.v_proj", hidden, shared_heads * head, bias=qkv_bias)
        yield from _linear(f"{layer}.self_attn.o_proj", heads * head, hidden, bias=output_bias)
        yield from _linear(f"{layer}.mlp.gate_proj", hidden, wide, bias=mlp_bias)
        yield from _linear(f"{layer}.mlp.up_proj", hidden, wide, bias=mlp_bias)
        yield from _linear(f"{layer}.mlp.down_proj", wide, hidden, bias=mlp_bias)
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    if not config.get("tie_word_embeddings", False):
        yield "lm_head.weight", (vocab, hidden)


def _bert(config: Config) -> Named:
    """Pooler and both pre-training heads too, as in the published checkpoints: each class that loads them takes its own."""
    hidden, wide, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    yield "bert.embeddings.word_embeddings.weight", (vocab, hidden)
    yield "bert.embeddings.position_embeddings.weight", (config["max_position_embeddings"], hidden)
    yield "bert.embeddings.token_type_embeddings.weight", (config["type_vocab_size"], hidden)
    yield from _norm("bert.embeddings.LayerNorm", hidden)
    for number in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            yield from _linear(f"{layer}.attention.self.{part}", hidden, hidden, bias=True)
        yield from _linear(f"{layer}.attention.output.dense", hidden, hidden, bias=True)
        yield from _norm(f"{layer}.attention.output.LayerNorm", hidden)
        yield from _linear(f"{layer}.intermediate.dense", hidden, wide, bias=True)
        yield from _linear(f"{layer}.output.dense", wide, hidden, bias=True)
        yield from _norm(f"{layer}.output.LayerNorm", hidden)
    yield from _linear("bert.pooler.dense", hidden, hidden, bias=True)
    yield "cls.predictions.bias", (vocab,)
    yield from _linear("cls.predictions.transform.dense", hidden, hidden, bias=True)
    yield from _norm("cls.predictions.transform.LayerNorm", hidden)
    yield from _linear("cls.seq_relationship", hidden, 2, bias=True)


def _linear(name: str, inputs: int, outputs: int, *, bias: bool) -> Named:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, size: int) -> Named:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)


_LAYOUTS: Final[dict[str, Callable[[Config], Named]]] = {
    "GPTNeoXForCausalLM": _gpt_neox,
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _mistral,
    "Qwen2ForCausalLM": _qwen2,
    "BertForMaskedLM": _bert,
    "BertForPreTraining": _bert,
}
