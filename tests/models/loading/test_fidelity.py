"""What differs between a model and its checkpoint, told without a loading report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.loading.fidelity import compare, from_report
from tests.conftest import needs

pytestmark = needs("torch", "safetensors")


def plain() -> Any:
    import torch

    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(10, 8), "head": torch.nn.Linear(8, 10)})
    return model.to(torch.float32)


@pytest.fixture(params=["safetensors", "nested .pt"])
def checkpoint(tmp_path: Path, request: pytest.FixtureRequest) -> Checkpoint:
    import torch
    from safetensors.torch import save_file

    if request.param == "safetensors":
        save_file(plain().state_dict(), tmp_path / "weights.safetensors")
    else:
        torch.save({"model": plain().state_dict(), "epoch": 1}, tmp_path / "weights.pt")
    return read_checkpoint(tmp_path)


def test_the_same_weights_have_no_difference_whatever_holds_them(checkpoint: Checkpoint) -> None:
    import torch

    wrapped = torch.nn.ModuleDict({"module": plain()})

    for model in (plain(), wrapped, plain().state_dict(), {"model": plain().state_dict()}, plain().to(torch.bfloat16)):
        assert list(compare(checkpoint, model).sentences()) == []
        assert not compare(checkpoint, model).unknown


def test_a_weight_that_was_initialized_anew_has_other_numbers(checkpoint: Checkpoint) -> None:
    import torch

    model = plain()
    torch.nn.init.normal_(model["head"].weight)

    assert compare(checkpoint, model).changed == ("head.weight",)


def test_names_that_one_of_them_lacks_and_other_shapes_are_told(checkpoint: Checkpoint) -> None:
    import torch

    model = plain()
    model["extra"] = torch.nn.Linear(2, 2, bias=False)
    model["head"] = torch.nn.Linear(8, 12, bias=False)

    found = compare(checkpoint, model)

    assert found.missing == ("extra.weight",)
    assert found.unexpected == ("head.bias",)
    assert found.mismatched == ("head.weight",)
    assert len(list(found.sentences())) == 3


def test_a_tie_is_no_missing_weight_and_a_lost_one_is(checkpoint: Checkpoint) -> None:
    import torch

    model = plain()
    model["tied"] = torch.nn.Linear(8, 10, bias=False)
    model["tied"].weight = model["embed"].weight
    assert compare(checkpoint, model).missing == ()

    model["tied"].weight = torch.nn.Parameter(model["embed"].weight.detach().clone())
    assert compare(checkpoint, model).missing == ("tied.weight",)


def test_a_tie_of_weights_over_ranks_is_no_missing_weight_and_a_lost_one_is(
    checkpoint: Checkpoint, spread: Callable[[Any], Any]
) -> None:
    import torch

    model = plain()
    model["tied"] = torch.nn.Linear(8, 10, bias=False)
    spread(model)
    model["tied"].weight = model["embed"].weight
    assert compare(checkpoint, model).missing == ()

    model["tied"].weight = torch.nn.Parameter(model["embed"].weight.detach().clone())
    assert compare(checkpoint, model).missing == ("tied.weight",)


def test_a_model_with_names_of_its_own_is_not_judged(checkpoint: Checkpoint) -> None:
    import torch

    assert "it has names of its own" in compare(checkpoint, torch.nn.Sequential(torch.nn.Linear(2, 2))).unknown
    assert "no names of weights" in compare(checkpoint, object()).unknown


def test_a_loading_report_is_read_as_transformers_writes_it() -> None:
    report = {
        "missing_keys": {"b", "a"},
        "unexpected_keys": [],
        "mismatched_keys": [("c", (1,), (2,))],
        "error_msgs": [],
    }

    found = from_report(report)

    assert (found.missing, found.unexpected, found.mismatched) == (("a", "b"), (), ("c",))
