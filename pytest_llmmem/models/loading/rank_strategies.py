"""The built-in strategies that spread a model over ranks."""

import os
from collections.abc import Callable
from typing import Any, Final

from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.loading import distributed, torch_sharded, zero
from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.strategy import Strategy, needs


def _over_ranks(
    name: str,
    summary: str,
    load: Callable[[LoadRequest], Any],
    call: Callable[[LoadRequest], str],
    *,
    library: str = "accelerate",
    unavailable: Callable[[], str | None] = lambda: None,
) -> Strategy:
    """``unavailable`` is asked where there are ranks and the libraries are installed."""

    def why_not(checkpoint: Checkpoint) -> str | None:
        if "WORLD_SIZE" not in os.environ:
            return "needs several processes: pass --llm-ranks=2, or mark the test with in_worker(ranks=2)"
        return needs(library)(checkpoint) or unavailable()

    return Strategy(
        name=name,
        summary=summary,
        load=load,
        call=call,
        libraries=(library,),
        unavailable=why_not,
        offered=False,
        needs_ranks=True,
    )


RANK_STRATEGIES: Final = (
    _over_ranks(
        "tensor_parallel",
        "each rank holds its part of every layer",
        distributed.load_tensor_parallel,
        distributed.tensor_parallel_call,
        unavailable=distributed.no_tensor_parallel,
    ),
    _over_ranks(
        "fsdp",
        "each rank holds its part of every weight, and gathers a layer to run it",
        distributed.load_fsdp,
        distributed.fsdp_call,
        unavailable=distributed.no_fsdp,
    ),
    _over_ranks(
        "fsdp_rank0",
        "the same, read by rank 0 alone: accelerate's cpu_ram_efficient_loading",
        torch_sharded.load_fsdp_rank0,
        torch_sharded.fsdp_rank0_call,
    ),
    _over_ranks(
        "dcp",
        "the same, read by torch.distributed.checkpoint",
        torch_sharded.load_dcp,
        torch_sharded.dcp_call,
        unavailable=torch_sharded.no_dcp,
    ),
    _over_ranks(
        "zero3",
        "DeepSpeed's ZeRO stage 3: each rank holds its part of every weight",
        zero.load_zero3,
        zero.zero3_call,
        library="deepspeed",
    ),
)
