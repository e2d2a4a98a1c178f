"""The tensors of well-known architectures, computed from ``config.json`` alone, with the names of their checkpoints."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.bounds import MAX_SIZE, MAX_TENSORS

Config = Mapping[str, Any]
Named = Iterator[tuple[str, tuple[int, ...]]]


def layout(config: Config) -> dict[str, tuple[int, ...]] | None:
    """Shapes by tensor name, in the model's order.

    ``None`` when the architecture is not one of these, or when the config omits a size with a default:
    only transformers knows it. Raises ``ValueError`` for sizes that no model can have.
    """
    architecture = next(iter(config.get("architectures") or ()), None)
    if architecture not in _LAYOUTS or config.get("quantization_config"):
        return None
    try:
        shapes = dict(islice(_LAYOUTS[architecture](config), MAX_TENSORS + 1))
    except KeyError:
        return None
    if len(shapes) > MAX_TENSORS:
        msg = f"a model of more than {MAX_TENSORS:,} tensors"
        raise ValueError(msg)
    return shapes


def _gpt_neox(config: Config) -> Named:
    hidden, wide, vocab = _sizes(config, "hidden_size", "intermediate_size", "vocab_size")
    attention_bias = config.get("attention_bias", True)
    yield "gpt_neox.embed_in.weight", (vocab, hidden)
    for number in range(*_sizes(config, "num_hidden_layers")):
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
    hidden, wide, vocab = _sizes(config, "hidden_size", "intermediate_size", "vocab_size")
    heads, shared_heads = _sizes(config, "num_attention_heads", "num_key_value_heads")
    (head,) = _sizes(config, "head_dim") if config.get("head_dim") else (hidden // max(1, heads),)
    mlp_bias = config.get("mlp_bias", False)
    yield "model.embed_tokens.weight", (vocab, hidden)
    for number in range(*_sizes(config, "num_hidden_layers")):
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


def _bert_for_pretraining(config: Config) -> Named:
    yield from _bert_for_masked_lm(config)
    (hidden,) = _sizes(config, "hidden_size")
    yield from _linear("bert.pooler.dense", hidden, hidden, bias=True)
    yield from _linear("cls.seq_relationship", hidden, 2, bias=True)


def _bert_for_masked_lm(config: Config) -> Named:
    hidden, wide, vocab = _sizes(config, "hidden_size", "intermediate_size", "vocab_size")
    yield "bert.embeddings.word_embeddings.weight", (vocab, hidden)
    positions, types = _sizes(config, "max_position_embeddings", "type_vocab_size")
    yield "bert.embeddings.position_embeddings.weight", (positions, hidden)
    yield "bert.embeddings.token_type_embeddings.weight", (types, hidden)
    yield from _norm("bert.embeddings.LayerNorm", hidden)
    for number in range(*_sizes(config, "num_hidden_layers")):
        layer = f"bert.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            yield from _linear(f"{layer}.attention.self.{part}", hidden, hidden, bias=True)
        yield from _linear(f"{layer}.attention.output.dense", hidden, hidden, bias=True)
        yield from _norm(f"{layer}.attention.output.LayerNorm", hidden)
        yield from _linear(f"{layer}.intermediate.dense", hidden, wide, bias=True)
        yield from _linear(f"{layer}.output.dense", wide, hidden, bias=True)
        yield from _norm(f"{layer}.output.LayerNorm", hidden)
    yield "cls.predictions.bias", (vocab,)
    yield from _linear("cls.predictions.transform.dense", hidden, hidden, bias=True)
    yield from _norm("cls.predictions.transform.LayerNorm", hidden)


def _sizes(config: Config, *keys: str) -> tuple[int, ...]:
    """Sizes from the config. Raises ``KeyError`` for a missing one, and ``ValueError`` for an invalid one."""
    for key in keys:
        if type(config[key]) is not int or not 0 <= config[key] <= MAX_SIZE:
            msg = f"'{key}' is {excerpt(repr(config[key]))}, and not a whole number from 0 on"
            raise ValueError(msg)
    return tuple(config[key] for key in keys)


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
    "BertForMaskedLM": _bert_for_masked_lm,
    "BertForPreTraining": _bert_for_pretraining,
}
