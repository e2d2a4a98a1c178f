"""The operations that torch chooses on a GPU."""

import pytest

# ruff: noqa: TID253 -- imported after the skip
pytest.importorskip("torch")

import torch
from torch.nn import functional

from pytest_llmmem.models.steps.device_rules import rules_of
from pytest_llmmem.models.steps.torch_internals import FakeTensorMode


@pytest.mark.parametrize("value_width", [128, 192])
def test_attention_is_as_wide_as_its_values(value_width: int) -> None:
    with FakeTensorMode(), rules_of("cuda"):
        query = torch.empty((2, 4, 32, 192), dtype=torch.bfloat16)
        value = torch.empty((2, 4, 32, value_width), dtype=torch.bfloat16)

        attended = functional.scaled_dot_product_attention(query, query, value, is_causal=True)

    assert attended.shape == (2, 4, 32, value_width)
