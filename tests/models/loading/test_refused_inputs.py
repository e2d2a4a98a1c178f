"""A forward pass that fails for its inputs skips the check ``forward``; one that fails for the load fails it."""

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmmem.models.loading.refused_inputs import refuses
from pytest_llmmem.models.loading.sample_inputs import sample_inputs
from pytest_llmmem.suites import checks
from tests.conftest import needs

pytestmark = needs("torch", "transformers")

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def seeing(model_class: Any = None) -> Any:
    from transformers import ViTConfig, ViTModel

    return (model_class or ViTModel)(ViTConfig(image_size=32, patch_size=16, **SMALL)).eval()


def outcome_of_forward(model: Any) -> str:
    """How the check's forward pass ends: a skip must not skip the test that looks at it."""
    try:
        checks.forward_of(SimpleNamespace(model=model))()  # type: ignore[arg-type]
    except pytest.skip.Exception as skipped:
        return f"skipped: {skipped}"
    except Exception as error:  # noqa: BLE001 -- any is a failure
        return f"failed: {error}"
    return "passed"


def of_other_shape(weight: Any) -> Any:
    import torch

    return torch.nn.Parameter(torch.zeros(weight.shape[0], weight.shape[1] + 1))


def a_linear_layer(model: Any) -> Any:
    import torch

    return next(each for each in model.modules() if isinstance(each, torch.nn.Linear))


def test_a_model_that_refuses_its_inputs_skips_with_the_reason() -> None:
    from transformers import ViTModel

    class SeesPairs(ViTModel):
        def forward(self, pixel_values: Any) -> Any:
            if pixel_values.ndim != 5:
                raise ValueError("two pictures are needed")

    outcome = outcome_of_forward(seeing(SeesPairs))

    assert outcome.startswith("skipped: inputs for SeesPairs could not be built: it refuses pixel_values: two")


def test_tensors_that_do_not_fit_are_refused_though_the_error_is_of_torch() -> None:
    from transformers import ViTModel

    class Projects(ViTModel):
        def forward(self, pixel_values: Any) -> Any:
            return pixel_values @ pixel_values.new_zeros(7, 7)

    outcome = outcome_of_forward(seeing(Projects))

    assert outcome.startswith("skipped: inputs for Projects could not be built: it refuses pixel_values: ")


def test_a_weight_of_another_shape_fails() -> None:
    model = seeing()
    layer = a_linear_layer(model)
    layer.weight = of_other_shape(layer.weight)

    outcome = outcome_of_forward(model)

    assert outcome.startswith("failed: ")
    assert "shapes" in outcome


def test_a_weight_of_another_dtype_fails() -> None:
    model = seeing()
    a_linear_layer(model).double()

    outcome = outcome_of_forward(model)

    assert outcome.startswith("failed: ")
    assert "dtype" in outcome


def test_a_weight_without_numbers_fails() -> None:
    model = seeing()
    a_linear_layer(model).to("meta")

    outcome = outcome_of_forward(model)

    assert outcome.startswith("failed: ")
    assert "meta" in outcome


def test_a_weight_that_is_missing_fails() -> None:
    model = seeing()
    a_linear_layer(model).weight = None

    outcome = outcome_of_forward(model)

    assert outcome.startswith("failed: ")
    assert "None" in outcome


def test_memory_that_is_not_there_fails() -> None:
    model = seeing()

    def hook(*_: Any) -> None:
        raise RuntimeError("can't allocate memory: you tried to allocate 74961920000 bytes")

    a_linear_layer(model).register_forward_pre_hook(hook)

    outcome = outcome_of_forward(model)

    assert outcome.startswith("failed: ")
    assert "allocate" in outcome


def test_a_model_of_text_that_refuses_tokens_fails() -> None:
    from transformers import BertConfig, BertModel

    class Refuses(BertModel):
        def forward(self, input_ids: Any) -> Any:
            raise ValueError("no tokens")

    outcome = outcome_of_forward(Refuses(BertConfig(vocab_size=64, **SMALL)))

    assert outcome.startswith("failed: ")
    assert "no tokens" in outcome


def test_where_values_decide_an_error_of_python_is_of_the_inputs_and_one_of_torch_is_not() -> None:
    from transformers import ViTModel

    class Decides(ViTModel):
        error: Exception

        def forward(self, pixel_values: Any) -> Any:
            if pixel_values.sum().item() == 0:
                raise self.error

    model = seeing(Decides)
    inputs = sample_inputs(model)
    told = []
    for model.error in (ValueError("no picture"), RuntimeError("no picture")):
        try:
            model(**inputs)
        except Exception as error:  # noqa: BLE001 -- both
            told.append(refuses(model, inputs, error))

    assert told == [True, False]
