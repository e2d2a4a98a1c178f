"""Inputs of a first forward pass, made from what a model takes and what its config says: real models, without weights."""

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmmem.models.loading.sample_inputs import NoInputsError, sample_inputs
from tests.conftest import needs

pytestmark = needs("torch", "transformers")

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
T5 = {"d_model": 32, "d_ff": 64, "num_layers": 1, "num_heads": 2, "vocab_size": 100}
PARTS = {"text_config": SMALL, "vision_config": SMALL | {"image_size": 32, "patch_size": 16}, "projection_dim": 16}


def made(model_type: str, **config: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModel

    with torch.device("meta"):
        return AutoModel.from_config(AutoConfig.for_model(model_type, **config)).eval()


@pytest.mark.parametrize(
    ("model_type", "config", "takes"),
    [
        ("llama", SMALL | {"num_key_value_heads": 2}, {"input_ids"}),
        ("t5", T5, {"input_ids", "decoder_input_ids"}),
        ("vit", SMALL | {"image_size": 32}, {"pixel_values"}),
        ("clip", PARTS, {"input_ids", "pixel_values"}),
        ("siglip", PARTS, {"input_ids", "pixel_values"}),
        (
            "whisper",
            {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
            {"input_features", "decoder_input_ids"},
        ),
        ("wav2vec2", SMALL, {"input_values"}),
        ("audio-spectrogram-transformer", SMALL, {"input_values"}),
    ],
)  # fmt: skip
def test_a_model_runs_with_what_is_made_for_it(model_type: str, config: dict[str, Any], takes: set[str]) -> None:
    import torch

    model = made(model_type, **config)

    inputs = sample_inputs(model)

    assert inputs.keys() == takes
    with torch.inference_mode():
        model(**{name: value.to("meta") for name, value in inputs.items()})


def test_pictures_are_of_the_model_s_dtype_and_tokens_are_not() -> None:
    import torch

    model = made("clip", **PARTS).to(torch.float16)

    inputs = sample_inputs(model)

    assert (inputs["pixel_values"].dtype, inputs["input_ids"].dtype) == (torch.float16, torch.long)


def test_what_is_no_model_of_transformers_is_said() -> None:
    with pytest.raises(NoInputsError, match="what SimpleNamespace takes is not known: it is no model of transformers"):
        sample_inputs(SimpleNamespace())


def test_several_main_inputs_without_a_known_form_are_named() -> None:
    class Segmenter:
        config = SimpleNamespace()
        main_input_name = ("pictures", "tasks")

        def forward(self, pictures: Any, tasks: Any) -> None: ...

    with pytest.raises(NoInputsError, match="what Segmenter takes is not known: pictures, tasks"):
        sample_inputs(Segmenter())
