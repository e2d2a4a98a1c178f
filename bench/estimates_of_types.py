"""Compare predicted with measured peaks: 25 types of models, three strategies, by load and by load and first forward.

    python bench/estimates_of_types.py
    python bench/estimates_of_types.py --type bert --load naive

Each type has 0.1 to 0.8 GB of weights in bfloat16. The largest load needs 2 GB.
"""

import argparse
import gc
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import accelerate  # noqa: F401 -- imported here, it is not in the memory of a load
import torch
import transformers
from _run import MB, table, verdict
from transformers import LlamaForCausalLM  # noqa: F401 -- as above

from pytest_llmmem import measure
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.measuring.blocks import memory_budget
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.loading.load_model import load_model
from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.sample_inputs import sample_inputs
from pytest_llmmem.models.loading.strategies import STRATEGIES
from pytest_llmmem.models.sources.source import open_checkpoint, parse_source

LOADS = ("default", "naive", "sharded")
GOAL = "within 5 % or 30 MB"
_SMALL_TEXT = {
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
}
TYPES: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "llama": ("LlamaForCausalLM", {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8, "num_attention_heads": 16}),
    "qwen2": ("Qwen2ForCausalLM", {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 8, "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "gemma": ("GemmaForCausalLM", {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4}),
    "gpt2": ("GPT2LMHeadModel", {}),
    "opt": ("OPTForCausalLM", {}),
    "gpt_neox": ("GPTNeoXForCausalLM", {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8, "num_attention_heads": 16}),
    "bloom": ("BloomForCausalLM", {"hidden_size": 1024, "n_layer": 4, "n_head": 16}),
    "mixtral": ("MixtralForCausalLM", {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 4, "num_attention_heads": 12, "num_key_value_heads": 4}),
    "olmoe": ("OlmoeForCausalLM", {"hidden_size": 768, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 12, "num_key_value_heads": 12}),
    "t5": ("T5ForConditionalGeneration", {"d_model": 768, "d_ff": 3072, "num_layers": 6, "num_heads": 12}),
    "bart": ("BartForConditionalGeneration", {"encoder_layers": 6, "decoder_layers": 6}),
    "pegasus": ("PegasusForConditionalGeneration", {"encoder_layers": 4, "decoder_layers": 4}),
    "whisper": ("WhisperForConditionalGeneration", {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 12, "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}),
    "vit": ("ViTForImageClassification", {}),
    "dinov2": ("Dinov2Model", {}),
    "convnext": ("ConvNextForImageClassification", {"hidden_sizes": [192, 384, 768, 1536], "depths": [3, 3, 9, 3]}),
    "wav2vec2": ("Wav2Vec2ForCTC", {}),
    "hubert": ("HubertModel", {}),
    "clip": ("CLIPModel", {}),
    "siglip": ("SiglipModel", {}),
    "llava": ("LlavaForConditionalGeneration", {"text_config": _SMALL_TEXT | {"tie_word_embeddings": True}, "tie_word_embeddings": True}),
    "mamba": ("MambaForCausalLM", {"num_hidden_layers": 16}),
    "mamba2": ("Mamba2ForCausalLM", {"hidden_size": 1024, "num_hidden_layers": 8, "num_heads": 32, "head_dim": 64}),
    "bert": ("BertForMaskedLM", {}),
    "xlm-roberta": ("XLMRobertaForMaskedLM", {"vocab_size": 250002}),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", action="append", choices=TYPES)
    parser.add_argument("--load", action="append", choices=LOADS)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    gc.freeze()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model_type in options.type or TYPES:
            for row in measured(model_type, options.load or LOADS, Path(folder)):
                rows.append(row)
                print(*row, flush=True)
    print()
    table(("type", "load", "count", "predicted MB", "measured MB", "difference", GOAL), *rows)
    judged = [row[-1] for row in rows if row[-1]]
    met = judged.count(verdict(True))
    print(f"\n{met} of {len(judged)} ({met / max(1, len(judged)):.0%}) {GOAL}")


def measured(model_type: str, loads: tuple[str, ...], folder: Path) -> Iterator[tuple[object, ...]]:
    """A row for each number of each load."""
    architecture, changes = TYPES[model_type]
    config = folder / model_type / "config.json"
    config.parent.mkdir()
    config.write_text(
        json.dumps({**changes, "model_type": model_type, "architectures": [architecture], "torch_dtype": "bfloat16"})
    )
    checkpoint = open_checkpoint(parse_source(f"synthetic:{config}?shard=100MB", base=folder), cache=folder / "cache")
    for load in loads:
        predicted = checkpoint.estimate(load=load)
        if predicted.peak_bytes is None:
            yield model_type, load, "", "not predicted", "", "", ""
            continue
        try:
            run = measure(load_and_run, checkpoint, load, folder, timeout=300, max_ram="5GB")
            run.check()
        except Exception as error:  # noqa: BLE001 -- any library's own
            yield model_type, load, "", f"failed: {str(error)[:200]}", "", "", ""
            continue
        loaded, ran = run.value
        resident = max(predicted.peak_resident_bytes or 0, predicted.forward_resident_bytes or 0)
        for count, expected, actual in (
            ("unreclaimable", predicted.peak_bytes, loaded.peak_bytes),
            ("resident", predicted.peak_resident_bytes or 0, loaded.peak_resident_bytes),
            ("resident, with a forward", resident, ran.peak_resident_bytes),
        ):
            difference = actual - expected
            is_near = abs(difference) <= max(30 * MB, 0.05 * actual)
            yield (
                model_type,
                load,
                count,
                f"{expected / MB:.0f}",
                f"{actual / MB:.0f}",
                f"{difference / MB:+.0f}",
                verdict(is_near),
            )


def load_and_run(checkpoint: Checkpoint, load: str, folder: Path) -> tuple[Peak, Peak]:
    """The peak of the load, and of the load and a first forward."""
    torch.set_num_threads(1)
    request = LoadRequest(checkpoint=checkpoint, offload_folder=folder)
    with memory_budget(None, name="both") as both:
        loaded = load_model(request, STRATEGIES[load], lambda: memory_budget(None, name="load"))
        loaded.touch()
        with torch.inference_mode():
            loaded.model(**sample_inputs(loaded.model))
    assert loaded.peak is not None
    assert both.peak is not None
    return loaded.peak, both.peak


if __name__ == "__main__":
    main()
