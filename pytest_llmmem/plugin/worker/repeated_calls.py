"""The calls of a test that is marked with ``max_growth``, in the process that runs it."""

import functools
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_llmmem.core.growth import MemoryGrowth
from pytest_llmmem.measuring.connection import current
from pytest_llmmem.measuring.growth import memory_growth
from pytest_llmmem.plugin.markers import MaxGrowth


@dataclass(frozen=True, slots=True)
class Grown:
    """Worker to parent: what each call of the test left."""

    growth: MemoryGrowth


class RepeatedCalls:
    """Hook that repeats the call of a marked test, with the same fixtures."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        __tracebackhide__ = True
        connection = current()
        marker = None if connection is None else MaxGrowth.of(pyfuncitem)
        if connection is None or marker is None:
            return (yield)
        test = pyfuncitem.obj

        @functools.wraps(test)
        def calls(**arguments: Any) -> None:
            __tracebackhide__ = True
            call = functools.partial(test, **arguments)
            connection.send(Grown(memory_growth(call, repeat=marker.repeat, warmup=marker.warmup)))

        pyfuncitem.obj = calls
        try:
            return (yield)
        finally:
            pyfuncitem.obj = test
