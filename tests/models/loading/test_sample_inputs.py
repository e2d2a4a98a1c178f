"""Inputs of a first forward pass, made from what a model takes and what its config says: real models, without weights."""

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmmem.models.loading.sample_inputs import NoInputsError, sample_inputs
from pytest_llmmem.models.loading.sample_sizes import picture_in
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


QFORMER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "encoder_hidden_size": 32,
}
OPT = {
    "model_type": "opt",
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def test_a_text_has_a_placeholder_for_each_part_of_its_picture() -> None:
    import torch

    parts = {"vision_config": SMALL | {"image_size": 28}, "qformer_config": QFORMER, "text_config": OPT}
    model = made("blip-2", **parts, num_query_tokens=5, image_token_index=7).to_empty(device="cpu")

    inputs = sample_inputs(model)

    assert (inputs["input_ids"] == 7).sum() == 5
    with torch.inference_mode():
        model(**inputs)


def test_a_codec_takes_one_channel_of_sound() -> None:
    inputs = sample_inputs(made("dac", encoder_hidden_size=8, decoder_hidden_size=64, downsampling_ratios=[2, 4]))

    assert inputs["input_values"].shape[:2] == (1, 1)


def test_the_size_of_a_picture_is_found_in_the_config_of_a_part_of_a_part() -> None:
    backbone = SimpleNamespace(image_size=[48, 64])
    config = SimpleNamespace(vision_config=SimpleNamespace(backbone_config=backbone))

    assert picture_in(config) == (3, 48, 64, None)


def test_a_model_whose_parts_alone_have_a_forward_pass_is_said() -> None:
    from torch import nn

    class Parts(nn.Module):
        config = SimpleNamespace()
        main_input_name = "input_ids"

    with pytest.raises(NoInputsError, match="Parts has no forward pass of its own, only its parts have"):
        sample_inputs(Parts())


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


def test_a_config_without_a_number_that_an_input_is_made_from_is_said() -> None:
    class Embeds:
        config = SimpleNamespace()
        main_input_name = "inputs_embeds"
        device = SimpleNamespace(type="cpu")

        def forward(self, inputs_embeds: Any) -> None: ...

    with pytest.raises(NoInputsError, match=r"inputs for Embeds could not be built: inputs_embeds: .* 'hidden_size'"):
        sample_inputs(Embeds())
