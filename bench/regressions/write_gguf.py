"""Write ``model.gguf`` beside a config: a Llama of zeros in float16, for an environment that has the package gguf.

python write_gguf.py FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFWriter


def main(folder: Path) -> None:
    config = json.loads(folder.joinpath("config.json").read_text())
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads = config["num_attention_heads"]
    writer = GGUFWriter(folder / "model.gguf", "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(vocabulary)
    shapes = {"token_embd": (vocabulary, hidden), "output": (vocabulary, hidden), "output_norm": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        block = f"blk.{layer}."
        shapes |= {f"{block}attn_{part}": (hidden, hidden) for part in ("q", "k", "v", "output")}
        shapes |= {f"{block}ffn_{part}": (inner, hidden) for part in ("gate", "up")}
        shapes |= {f"{block}ffn_down": (hidden, inner), f"{block}attn_norm": (hidden,), f"{block}ffn_norm": (hidden,)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float16 if len(shape) == 2 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
