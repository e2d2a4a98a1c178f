"""Measure the memory that each further call of a function leaves behind."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from pytest_llmmem import probes
from pytest_llmmem.core.growth import MemoryGrowth, check_calls
from pytest_llmmem.measuring.connection import current_or_own
from pytest_llmmem.models.loading.residency import trim


def memory_growth(
    function: Callable[[], object], *, repeat: int = 20, warmup: int = 3, name: str = "growth"
) -> MemoryGrowth:
    """Call a function again and again where it is, and return what each call leaves.

        growth = memory_growth(lambda: model.generate(**inputs), repeat=20, warmup=3)
        assert growth.per_call_bytes <= growth.error_bytes

    The ``warmup`` calls before the first count are for what is filled once, such as caches. After each call garbage is
    collected, and the C library gives back what it holds free. The calls are one phase in the report of their test.

    Raises ``ValueError`` for numbers that cannot be used, and whatever the function raises.
    """
    __tracebackhide__ = True
    try:
        check_calls(repeat, warmup)
    except ValueError as error:
        msg = f"memory_growth: {error}"
        raise ValueError(msg) from None
    connection = current_or_own()
    connection.open(name)
    try:
        for _ in range(warmup):
            function()
        held = [_held()]
        for _ in range(repeat):
            function()
            held.append(_held())
    finally:
        connection.close()
    ram, vram = zip(*held, strict=True)
    used_vram = any(each is not None for each in vram)
    return MemoryGrowth(
        held_bytes=_above_first(ram), vram_held_bytes=_above_first([each or 0 for each in vram]) if used_vram else ()
    )


def _held() -> tuple[int, int | None]:
    """Memory held on the host, and by tensors on GPUs; ``None`` where no GPU is used."""
    trim()
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    if getattr(cuda, "is_initialized", bool)() is not True:
        return probes.count_unreclaimable(), None
    return probes.count_unreclaimable(), sum(cuda.memory_allocated(index) for index in range(cuda.device_count()))


def _above_first(held: Sequence[int]) -> tuple[int, ...]:
    return tuple(each - held[0] for each in held)
