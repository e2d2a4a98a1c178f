"""Tensors are found in whatever a loader returns."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmmem.models.loading.storage import main_dtype, nbytes_by_device, weights
from pytest_llmmem.models.loading.tensor_walk import walk
from tests.conftest import needs

pytestmark = needs("torch", "numpy")


def tensor(elements: int, dtype: str = "float32") -> Any:
    import torch

    return torch.zeros(elements, dtype=getattr(torch, dtype))


def nbytes(held: Any) -> int:
    return nbytes_by_device(held).get("cpu", 0)


@dataclass(slots=True)
class Engine:
    runner: Any
    name: str = "engine"


def test_nested_dicts_and_lists_are_looked_into() -> None:
    held = {"model": {"layers": [tensor(10), (tensor(20),)]}, "step": 3, "optimizer": {"state": {}}}

    assert nbytes(held) == 4 * 30
    assert len(weights(held)) == 2


def test_the_attributes_of_plain_objects_are_looked_into() -> None:
    import torch

    pipeline = SimpleNamespace(unet=torch.nn.Linear(4, 4, bias=False), vae=Engine(tensor(10)), tokenizer={"a": 1})

    assert nbytes(pipeline) == 4 * (16 + 10)


def test_what_a_module_holds_beside_its_parameters_counts_and_is_no_weight() -> None:
    import torch

    model = torch.nn.Linear(4, 4, bias=False)
    model.spare = [model.weight.detach().clone()]
    model.alias = model.weight

    assert nbytes(model) == 2 * 4 * 16
    assert nbytes_by_device(model, of="weights") == {"cpu": 4 * 16}


def test_a_module_in_a_plain_list_of_another_counts() -> None:
    import torch

    model = torch.nn.Linear(4, 4, bias=False)
    model.older = [torch.nn.Linear(8, 8, bias=False)]

    assert nbytes(model) == 4 * (16 + 64)


def test_no_property_is_called_and_no_lazy_mapping_is_asked() -> None:
    from collections.abc import Mapping

    class Lazy(Mapping):  # as accelerate's weights on disk
        def __getitem__(self, name: str) -> Any:
            raise AssertionError(name)

        def __iter__(self) -> Any:
            raise AssertionError

        def __len__(self) -> int:
            raise AssertionError

    class Careful:
        def __init__(self) -> None:
            self.weights = Lazy()
            self.there = tensor(10)

        @property
        def costly(self) -> Any:
            raise AssertionError

    assert nbytes(Careful()) == 40


def test_what_refers_to_itself_is_walked_once() -> None:
    held: dict[str, Any] = {"weight": tensor(10)}
    held["self"] = held

    assert len(list(walk(held))) == 1


def test_a_mapped_array_is_found_without_a_copy_and_without_a_warning(tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "weight.npy", np.ones(1000, dtype="float16"))
    array = np.load(tmp_path / "weight.npy", mmap_mode="r")

    (found,) = walk({"weight": array})

    assert found.value.data_ptr() == array.ctypes.data
    assert nbytes({"weight": array, "part": array[10:20]}) == 2000


@pytest.mark.parametrize("dtype", [[("a", "i4"), ("b", "f2")], "M8[s]"])
def test_an_array_of_a_dtype_that_torch_has_not_is_bytes(dtype: Any) -> None:
    import numpy as np

    array = np.zeros(7, dtype=dtype)

    assert nbytes([array]) == array.nbytes


def test_the_dtype_is_that_of_most_floating_point_bytes() -> None:
    import torch

    held = {"packed": tensor(1000, "int8"), "norm": tensor(10, "float32"), "weight": tensor(100, "bfloat16")}

    assert main_dtype(held) == torch.bfloat16
    assert main_dtype({"packed": tensor(3, "int8")}) == torch.int8
    assert main_dtype({}) is None
