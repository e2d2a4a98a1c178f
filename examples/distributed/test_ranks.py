"""Tests of a model that is spread over two processes: ``pytest examples/distributed --llm-model=SOURCE --llm-ranks=2``."""

import pytest
import torch
import torch.distributed as dist

pytestmark = pytest.mark.in_worker(timeout=120)


@pytest.mark.in_worker(ranks=2)
@pytest.mark.max_ram("ranks * 50MB")
def test_ranks_exchange_tensors(rank, process_group):
    values = torch.full((1000,), float(rank))
    dist.all_reduce(values, group=process_group)
    assert (values == 1).all()


@pytest.mark.llm_load("tensor_parallel")
@pytest.mark.max_ram("1.5 * share + 100MB", per="rank")
def test_a_rank_holds_its_share(loaded_model):
    with torch.inference_mode():
        loaded_model.model(torch.ones(1, 8, dtype=torch.long))
    assert loaded_model.nbytes < 0.6 * loaded_model.checkpoint.weights_bytes


@pytest.mark.in_worker(ranks=2)
@pytest.mark.xfail(reason="rank 1 shows how a failure names its rank", raises=ValueError, strict=True)
def test_one_rank_fails(rank, process_group):
    if rank == 1:
        raise ValueError("of rank 1")
    dist.barrier()
