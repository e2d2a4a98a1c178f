"""Small models for steps, and the same step on real tensors as on fake ones."""

from typing import Any

import torch  # noqa: TID253 -- imported by tests that need it

from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.models.steps.adapters import prepare, quietly
from pytest_llmmem.models.steps.fake_model import build_on_meta
from pytest_llmmem.models.steps.generation import run_generation
from pytest_llmmem.models.steps.optimizers import make_optimizer
from pytest_llmmem.models.steps.phases import GenerationPhases
from pytest_llmmem.models.steps.spec import GenerateSpec, PredictRequest, TrainSpec
from pytest_llmmem.models.steps.tracker import StorageTracker
from pytest_llmmem.models.steps.training import run_training

_SIZES = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}

LLAMA = _SIZES | {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 128,
}
NEOX = _SIZES | {
    "model_type": "gpt_neox",
    "architectures": ["GPTNeoXForCausalLM"],
    "vocab_size": 1000,
    "max_position_embeddings": 128,
}
BERT = _SIZES | {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "vocab_size": 1000,
    "max_position_embeddings": 128,
}
T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 64,
    "d_ff": 160,
    "d_kv": 16,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 1000,
    "decoder_start_token_id": 0,
}
LLAVA = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "image_token_id": 999,
    "text_config": LLAMA,
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    },
}
MODELS = {"llama": LLAMA, "neox": NEOX, "bert": BERT, "t5": T5}


def request(config: dict[str, Any], step: TrainSpec | GenerateSpec, *, dtype: str = "float32") -> PredictRequest:
    return PredictRequest(config=config, step=step, dtype=dtype, device="cpu")


def make_real(config: dict[str, Any], *, dtype: str = "float32") -> Any:
    """The model of a config, with small random weights."""
    with quietly():
        model = build_on_meta(config, dtype=dtype)
        model.to_empty(device="cpu")
        model.tie_weights()
        for each in (*model.parameters(), *model.buffers()):
            if each.is_floating_point():
                each.data.uniform_(-0.02, 0.02)
            else:
                each.zero_()
    return model


def measure(wanted: PredictRequest) -> StepMemory:
    """The same step on real tensors."""
    step = wanted.step
    model = make_real(dict(wanted.config), dtype=wanted.dtype)
    with quietly(), torch.random.fork_rng():
        if isinstance(step, TrainSpec):
            model = prepare(model, step)
            optimizer = make_optimizer(step.optimizer, model.parameters(), device="cpu", are_fake=False)
            with StorageTracker(model, optimizer) as tracker:
                run_training(model, optimizer, step, device="cpu")
            return tracker.memory()
        with StorageTracker(model.eval(), phases=GenerationPhases()) as tracker:
            run_generation(model, step, device="cpu")
        return tracker.memory("generate_step")
