"""What a marker or the command line says of a step."""

import pytest

from pytest_llmmem.models.steps.spec import GenerateSpec, PredictRequest, TrainSpec


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"batch_size": 0}, "batch_size=0 is not a number of them: write a whole number from 1 on"),
        ({"batch_size": True}, "batch_size=True"),
        ({"seq_len": -1}, "seq_len=-1"),
        ({"optimizer": "lion"}, "optimizer='lion' is not known: write one of adamw, "),
        ({"checkpointing": "always"}, "checkpointing='always' is not known"),
        ({"lora": 0}, "lora=0"),
        ({"images": -1}, "images=-1 is not a number of them"),
        ({"lora_targets": ("q_proj",)}, "lora_targets needs a rank"),
        ({"lora": 4, "lora_targets": "q_proj"}, "is one name: write a tuple of names"),
        ({"precision": "int8"}, "precision='int8' is not known: write one of float32, float16, bfloat16"),
        ({"autocast": "fp16"}, "autocast='fp16' is not known"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_can(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("(", r"\(")):
        TrainSpec.parse(given)


def test_a_name_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="batch"):
        GenerateSpec.parse({"batch": 1})


@pytest.mark.parametrize("step", [TrainSpec(lora=4, lora_targets=("a", "b")), GenerateSpec(prompt=3)])
def test_a_request_comes_back_from_json_as_it_was(step: TrainSpec | GenerateSpec) -> None:
    request = PredictRequest(config={"a": 1}, step=step, dtype="bfloat16", limits=(1,), grid=((1, 2),))

    assert PredictRequest.from_json(request.to_json()) == request
