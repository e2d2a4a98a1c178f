"""What the stand-in of our tests offers, and so what the probe may call, is what torch has."""

import inspect
import sys
from unittest.mock import Mock

import pytest

from pytest_llmmem.probes import torch_memory
from tests import nvml
from tests.conftest import needs
from tests.sample_gpu import GB, Cuda, Torch

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


@pytest.fixture
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch has its own functions, also where an earlier test has read its memory, and again after the test."""
    import torch

    for module in (torch.cuda, torch.cuda.memory, torch.xpu, torch.xpu.memory):
        monkeypatch.setattr(module, "reset_peak_memory_stats", inspect.unwrap(module.reset_peak_memory_stats))


@needs("torch")
def test_nothing_is_read_before_a_device_is_in_use(put_back: None) -> None:
    import torch

    assert not torch.cuda.is_initialized()
    assert torch_memory.read() == ()


def test_peaks_that_a_test_resets_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Torch(24 * GB, 24 * GB)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    torch_memory.read()

    for size in (3 * GB, 5 * GB, GB):
        torch.cuda.allocate(size)
        torch.cuda.free(size)
        torch.cuda.reset_peak_memory_stats(0)

    (reading,) = torch_memory.read()
    assert (reading.allocated_bytes, reading.peak_allocated_bytes, reading.peak_reserved_bytes) == (0, 5 * GB, 5 * GB)
    assert [reading.peak_allocated_bytes for reading in torch_memory.read()] == [0]


@needs("torch")
def test_torch_s_own_function_is_kept_under_both_of_its_names(put_back: None) -> None:
    import torch

    original = torch.cuda.reset_peak_memory_stats

    torch_memory.read()

    assert torch.cuda.reset_peak_memory_stats is torch.cuda.memory.reset_peak_memory_stats is not original
    assert inspect.signature(torch.cuda.reset_peak_memory_stats) == inspect.signature(original)


def test_a_mock_of_torch_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Mock()
    monkeypatch.setitem(sys.modules, "torch", torch)
    reset = torch.cuda.reset_peak_memory_stats

    assert torch_memory.read() == ()
    assert torch.cuda.reset_peak_memory_stats is reset


@needs("torch")
def test_torch_keeps_and_writes_a_history_under_the_same_names() -> None:
    import torch

    inspect.signature(torch.cuda.memory._record_memory_history).bind(max_entries=1, stacks="python")
    inspect.signature(torch.cuda.memory._record_memory_history).bind(None)
    inspect.signature(torch.cuda.memory._dump_snapshot).bind("file")
