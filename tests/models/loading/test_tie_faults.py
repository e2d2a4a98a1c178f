"""Ties that the class of a model declares, beside the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_llmmem.models.loading.tie_faults import TieFaults
from tests.conftest import needs
from tests.models.loading.sample_loads import TIED, load, request, written

pytestmark = needs("torch", "transformers")


def test_a_tie_that_the_model_lost_is_a_fault(tmp_path: Path) -> None:
    import torch

    loaded = load(request(written(tmp_path, TIED), tmp_path))
    model = loaded.model
    assert loaded.tie_faults == TieFaults()

    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())

    assert loaded.tie_faults == TieFaults(lost=("lm_head.weight",))


def test_a_tie_of_weights_over_ranks_is_a_fault_where_it_is_lost_alone(
    tmp_path: Path, spread: Callable[[Any], Any]
) -> None:
    import torch

    loaded = load(request(written(tmp_path, TIED), tmp_path))
    model = spread(loaded.model)
    model.lm_head.weight = model.model.embed_tokens.weight
    assert loaded.tie_faults == TieFaults()

    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())

    assert loaded.tie_faults == TieFaults(lost=("lm_head.weight",))
