"""What the stand-in of our tests offers, and so what the probe may call, is what torch has."""

import inspect

import pytest

from pytest_llmmem.probes import torch_memory
from tests.card import Cuda
from tests.conftest import needs

FUNCTIONS = {
    name: inspect.signature(function)
    for name, function in inspect.getmembers(Cuda, inspect.isfunction)
    if not name.startswith("_") and name not in {"allocate", "free", "fragment", "pin"}
}
OF_CUDA_ALONE = ("host_memory_stats", "reset_peak_host_memory_stats")


@needs("torch")
@pytest.mark.parametrize("kind", torch_memory.KINDS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_torch_has_it_with_the_same_arguments(kind: str, name: str) -> None:
    import torch

    if kind != "cuda" and name in OF_CUDA_ALONE:
        pytest.skip("asked of torch.cuda alone")
    _self, *arguments = FUNCTIONS[name].parameters

    inspect.signature(getattr(getattr(torch, kind), name)).bind(*arguments)


@needs("torch")
def test_nothing_is_read_before_a_device_is_in_use() -> None:
    import torch

    assert not torch.cuda.is_initialized()
    assert torch_memory.read() == ()


@needs("torch")
def test_torch_keeps_and_writes_a_history_under_the_same_names() -> None:
    import torch

    inspect.signature(torch.cuda.memory._record_memory_history).bind(max_entries=1)
    inspect.signature(torch.cuda.memory._record_memory_history).bind(None)
    inspect.signature(torch.cuda.memory._dump_snapshot).bind("file")
