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


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"prompt": 0}, "prompt=0 is not a number of them"),
        ({"cache_implementation": "paged"}, "cache_implementation='paged' is not known: write one of dynamic, static"),
        ({"cache_config": "hqq"}, "cache_config='hqq' is no dictionary"),
        ({"max_cache_len": 0}, "max_cache_len=0"),
    ],
)
def test_a_value_of_a_generation_that_cannot_be_is_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        GenerateSpec.parse(given)


@pytest.mark.parametrize(
    ("generation_config", "kind"),
    [
        ({}, None),
        ({"cache_implementation": "static"}, "static"),
        ({"cache_implementation": "sliding_window"}, "static"),
        ({"cache_implementation": "hybrid"}, None),
        ({"cache_implementation": ["static"]}, None),
        ({"cache_implementation": "unknown"}, None),
        ({"cache_implementation": "static", "max_cache_len": "many", "cache_config": 3}, "static"),
    ],
)
def test_the_cache_is_the_one_that_the_model_asks_for(generation_config: dict[str, object], kind: str | None) -> None:
    assert GenerateSpec().caching_as(generation_config).cache_implementation == kind


def test_a_cache_that_the_step_names_is_not_replaced() -> None:
    named = GenerateSpec(cache_implementation="dynamic")

    assert named.caching_as({"cache_implementation": "static"}) == named


@pytest.mark.parametrize("step", [TrainSpec(lora=4, lora_targets=("a", "b")), GenerateSpec(prompt=3)])
def test_a_request_comes_back_from_json_as_it_was(step: TrainSpec | GenerateSpec) -> None:
    request = PredictRequest(config={"a": 1}, step=step, dtype="bfloat16", limits=(1,), grid=((1, 2),))

    assert PredictRequest.from_json(request.to_json()) == request
