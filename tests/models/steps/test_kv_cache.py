"""Caches of keys and values of each kind: measured, predicted and calculated."""

from typing import Any

import pytest

from tests.conftest import needs

pytest.importorskip("transformers")

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.models.steps.kv_cache import cache_bytes
from pytest_llmmem.models.steps.prediction import predict, predicting
from pytest_llmmem.models.steps.spec import GenerateSpec
from tests.models.steps.sample_steps import LLAMA, T5, measure, request

MISTRAL = LLAMA | {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 10}
MIXED = LLAMA | {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "use_sliding_window": True,
    "sliding_window": 10,
    "layer_types": ["sliding_attention", "full_attention"],
}
PACKAGES = {"quanto": ("optimum",), "hqq": ("hqq",)}


def static(**settings: Any) -> dict[str, Any]:
    return {"cache_implementation": "static"} | settings


def quantized(backend: str, **settings: Any) -> dict[str, Any]:
    return {"cache_implementation": "quantized", "cache_config": {"backend": backend} | settings}


def case(config: dict[str, Any], settings: dict[str, Any], name: str) -> Any:
    packages = PACKAGES.get(settings.get("cache_config", {}).get("backend", ""), ())
    return pytest.param(config, settings, id=name, marks=needs(*packages))


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        case(LLAMA, {}, "dynamic"),
        case(MISTRAL, {}, "dynamic-window-10"),
        case(MISTRAL | {"sliding_window": 28}, {}, "dynamic-window-28"),
        case(MIXED, {}, "dynamic-mixed"),
        case(LLAMA, static(), "static"),
        case(LLAMA, static(max_cache_len=100), "static-100"),
        case(MISTRAL, static(), "static-window-10"),
        case(MIXED, static(), "static-mixed"),
        case(LLAMA, quantized("fp8"), "fp8"),
        case(LLAMA, quantized("quanto"), "quanto"),
        case(LLAMA, quantized("quanto", residual_length=5, q_group_size=16), "quanto-residual-5"),
        case(LLAMA, quantized("quanto", nbits=2, residual_length=3, q_group_size=32), "quanto-2-bits"),
        case(LLAMA, quantized("quanto", axis_key=-1, axis_value=-1, q_group_size=4, residual_length=4), "quanto-axis"),
        case(LLAMA, quantized("hqq"), "hqq"),
        case(LLAMA, quantized("hqq", nbits=1, residual_length=5, q_group_size=16), "hqq-1-bit"),
        case(LLAMA, quantized("hqq", nbits=3, residual_length=5, q_group_size=16), "hqq-3-bits"),
        case(LLAMA, quantized("hqq", nbits=8, residual_length=1), "hqq-8-bits"),
        case(LLAMA, quantized("hqq", axis_key=1, axis_value=1, q_group_size=32, residual_length=4), "hqq-axis"),
    ],
)
def test_a_cache_is_measured_predicted_and_calculated_to_the_byte(
    config: dict[str, Any], settings: dict[str, Any]
) -> None:
    wanted = request(config, GenerateSpec(batch_size=2, prompt=24, new_tokens=8, **settings), dtype="bfloat16")

    measured, predicted = measure(wanted), predict(wanted)

    calculated = cache_bytes(config, wanted.step, dtype="bfloat16")  # type: ignore[arg-type]
    assert measured.kv_cache_bytes == predicted.kv_cache_bytes == calculated


def test_a_static_cache_does_not_depend_on_longer_generations_before() -> None:
    short = GenerateSpec(prompt=8, new_tokens=4, cache_implementation="static")
    wanted = request(LLAMA, short)

    with predicting(wanted) as measure_step:
        measure_step(GenerateSpec(prompt=64, new_tokens=4, cache_implementation="static"))
        after = measure_step(short)

    assert after.kv_cache_bytes == predict(wanted).kv_cache_bytes


@pytest.mark.parametrize(
    ("config", "settings", "told"),
    [
        (LLAMA, {"cache_implementation": "offloaded"}, "cache_implementation='offloaded' needs a GPU"),
        (LLAMA, quantized("nope"), "transformers makes no such cache for this model"),
        (MISTRAL, quantized("fp8"), "only full attention layers"),
    ],
)
def test_a_cache_that_cannot_be_made_is_one_sentence(
    config: dict[str, Any], settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(StepError, match=told) as raised:
        predict(request(config, GenerateSpec(prompt=8, new_tokens=2, **settings)))

    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("config", "settings", "told"),
    [
        (T5, {}, "an encoder-decoder caches its encoder's keys too"),
        (LLAMA, {"cache_implementation": "offloaded_static"}, "an offloaded cache is in the host's memory"),
        (LLAMA, quantized("hqq", axis_key=0, axis_value=1), "axis_key and axis_value that differ"),
    ],
)
def test_a_cache_without_a_formula_gives_the_reason(
    config: dict[str, Any], settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(StepError, match=told):
        cache_bytes(config, GenerateSpec(**settings), dtype="float32")
