"""Models whose weights are spread over ranks."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def spread() -> Iterator[Callable[[Any], Any]]:
    """Make every weight of a model a distributed one, over the only rank of a process group."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_module

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield lambda model: distribute_module(model, init_device_mesh("cpu", (1,)))
    distributed.destroy_process_group()
