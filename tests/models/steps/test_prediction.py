"""A step on fake tensors beside the same step on real ones."""

import dataclasses
from typing import Any

import pytest

from tests.conftest import needs

pytest.importorskip("transformers")

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.models.steps.prediction import predict
from pytest_llmmem.models.steps.spec import GenerateSpec, PredictRequest, TrainSpec
from tests.models.steps.sample_steps import BERT, LLAMA, LLAVA, MODELS, NEOX, measure, request

SMALL = {"batch_size": 2, "seq_len": 32}


def peaks(memory: StepMemory) -> list[tuple[int, str, int, dict[str, int]]]:
    return [(each.step, each.phase, each.peak_bytes, dict(each.by_kind)) for each in memory.phases]


@pytest.mark.parametrize("name", MODELS)
def test_every_phase_and_kind_is_predicted_to_the_byte(name: str) -> None:
    wanted = request(MODELS[name], TrainSpec(**SMALL))

    assert peaks(predict(wanted)) == peaks(measure(wanted))


@pytest.mark.parametrize(
    "step",
    [
        {"optimizer": "sgd"},
        {"optimizer": "adamw-foreach"},
        {"optimizer": "adamw-fused"},
        {"optimizer": "adafactor"},
        {"checkpointing": True},
        {"checkpointing": "reentrant"},
        {"accumulation": 2},
        {"accumulation": 2, "steps": 3},
        {"autocast": "bfloat16"},
        {"precision": "bfloat16"},
        pytest.param({"lora": 4}, marks=needs("peft")),
        pytest.param({"lora": 4, "checkpointing": True}, marks=needs("peft")),
        pytest.param({"lora": 4, "checkpointing": "reentrant"}, marks=needs("peft")),
    ],
    ids=lambda step: "-".join(f"{name}={value}" for name, value in step.items()),
)
def test_every_way_to_train_is_predicted_to_the_byte(step: dict[str, object]) -> None:
    wanted = request(LLAMA, TrainSpec(**SMALL | step))

    assert peaks(predict(wanted)) == peaks(measure(wanted))


def test_a_model_that_keeps_tensors_of_each_step_is_run_in_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def keeping(self: Any, **arguments: Any) -> Any:
        result = forward(self, **arguments)
        self.kept = [*getattr(self, "kept", []), result.logits.detach().clone()]
        return result

    monkeypatch.setattr(LlamaForCausalLM, "forward", keeping)
    wanted = request(LLAMA, TrainSpec(**SMALL, steps=3))

    predicted = predict(wanted)

    assert peaks(predicted) == peaks(measure(wanted))
    logits = 2 * 32 * 1000 * 4
    assert predicted.peak_of_step(3) - predicted.peak_of_step(2) == logits


def test_pictures_are_predicted_to_the_byte() -> None:
    wanted = request(LLAVA, TrainSpec(**SMALL, images=2))

    predicted = predict(wanted)

    assert peaks(predicted) == peaks(measure(wanted))
    assert any("vision_tower" in module for module in predicted.kept_by_pattern)


def test_generating_is_predicted_to_the_byte_and_its_cache_is_arithmetic() -> None:
    wanted = request(LLAMA, GenerateSpec(batch_size=2, prompt=16, new_tokens=8), dtype="bfloat16")

    predicted, measured = predict(wanted), measure(wanted)

    layers, batch, heads, head, length, size = 2, 2, 2, 16, 16 + 8 - 1, 2
    assert predicted.kv_cache_bytes == measured.kv_cache_bytes == 2 * layers * batch * heads * head * length * size
    assert predicted.peak_bytes == pytest.approx(measured.peak_bytes, rel=0.001)
    assert [each.phase for each in predicted.phases] == ["prefill", "decode"]


def test_checkpointing_lowers_activations_and_eval_mode_does_not() -> None:
    deep = LLAMA | {"num_hidden_layers": 6, "vocab_size": 100}

    plain = predict(request(deep, TrainSpec(**SMALL)))
    saving = predict(request(deep, TrainSpec(**SMALL, checkpointing=True)))

    assert saving.activations_bytes < 0.5 * plain.activations_bytes


def test_what_each_module_keeps_is_named_and_the_largest_comes_first() -> None:
    predicted = predict(request(LLAMA, TrainSpec(**SMALL)))

    sizes = [each.bytes for each in predicted.kept]
    assert sizes == sorted(sizes, reverse=True)
    assert predicted.kept[0].module == "LlamaForCausalLM"  # the logits
    assert "model.layers.1.self_attn" in [each.module for each in predicted.kept]


def test_the_optimizer_s_state_is_there_from_the_second_step_on() -> None:
    predicted = predict(request(LLAMA, TrainSpec(**SMALL)))

    first, second = (
        next(each for each in predicted.phases if each.step == step and each.phase == "backward") for step in (1, 2)
    )
    assert second.peak_bytes == first.peak_bytes + predicted.optimizer_bytes
    assert predicted.optimizer_bytes >= 2 * predicted.gradients_bytes


def test_a_card_s_rules_round_each_tensor_and_keep_no_matrix_of_attention() -> None:
    on_cpu = dataclasses.replace(request(LLAMA, TrainSpec(**SMALL)), dtype="bfloat16")
    on_card = dataclasses.replace(on_cpu, device="cuda")

    predicted = predict(on_card)

    assert predicted.device == "cuda"
    assert all(each.peak_bytes % 512 == 0 for each in predicted.phases)
    assert any("foreach" in each.op for each in predicted.phases)


def test_quantized_weights_take_half_a_byte_and_a_scale() -> None:
    plain = request(LLAMA | {"num_hidden_layers": 8}, GenerateSpec(prompt=8, new_tokens=2), dtype="bfloat16")

    quantized = predict(dataclasses.replace(plain, quantization="nf4"))

    linear = 8 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 160)
    saved = predict(plain).parameters_bytes - quantized.parameters_bytes
    codes = 8 * 7 * 64
    assert saved == linear * 2 - linear // 2 - linear // 64 * 4 - codes


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (request(LLAMA, TrainSpec(seq_len=129)), "the model has 128 positions"),
        (request(LLAMA | {"model_type": "nope"}, TrainSpec(**SMALL)), "builds no model from this config"),
        (
            request(LLAMA | {"hidden_size": "wide"}, TrainSpec(**SMALL)),
            "builds no model from this config .*hidden_size",
        ),
        (
            request(LLAVA, TrainSpec(**SMALL, images=9)),
            "images=9 take 36 positions, and seq_len is 32: write 36 or more",
        ),
        (request(LLAMA, TrainSpec(**SMALL, images=1)), "the pictures of LlamaForCausalLM are not of LLaVA's kind"),
        (request(BERT | {"architectures": ["BertModel"]}, TrainSpec(**SMALL)), "BertModel gives no loss"),
        pytest.param(
            request(NEOX, TrainSpec(**SMALL, lora=4, lora_targets=("q_proj",))),
            "GPTNeoXForCausalLM has no module 'q_proj': name some of dense",
            marks=needs("peft"),
        ),
    ],
)
def test_what_cannot_be_predicted_is_one_sentence(wanted: PredictRequest, told: str) -> None:
    with pytest.raises(StepError, match=told) as raised:
        predict(wanted)

    assert "\n" not in str(raised.value)


def test_quantized_weights_alone_cannot_be_trained() -> None:
    wanted = dataclasses.replace(request(LLAMA, TrainSpec(**SMALL)), quantization="nf4")

    with pytest.raises(StepError, match="train an adapter, lora=16"):
        predict(wanted)


def test_what_a_card_reserves_is_predicted_in_whole_segments_and_never_falls() -> None:
    on_cpu = dataclasses.replace(request(LLAMA, TrainSpec(**SMALL)), dtype="bfloat16")

    predicted = predict(dataclasses.replace(on_cpu, device="cuda"))

    reserved = [each.reserved_bytes or 0 for each in predicted.phases]
    assert all(size and size % 2**21 == 0 for size in reserved)
    assert reserved == sorted(reserved)
    assert predicted.reserved_bytes == reserved[-1] >= predicted.peak_bytes
    assert predict(on_cpu).reserved_bytes is None
