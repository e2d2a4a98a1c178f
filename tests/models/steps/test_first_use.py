"""The first use of torch's kernels before a step."""

import pytest

# ruff: noqa: E402 -- imported after the skip
torch = pytest.importorskip("torch")

from pytest_llmmem.models.steps.first_use import use_kernels_once


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_it_leaves_no_trace_but_memory(dtype: "torch.dtype") -> None:
    before = torch.get_rng_state()
    threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()

    use_kernels_once(dtype)

    assert torch.equal(torch.get_rng_state(), before)
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, gradients)
