"""Measurements that a test makes in separate workers: phases of the test."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pytest_llmmem.core.record_parts import Phase


@dataclass(frozen=True, slots=True)
class InnerPhase:
    """Worker to parent: the running test, or the function that is measured, has measured another one."""

    phase: Phase
    began: float
    """Time of the machine's monotonic clock."""


def with_inner(phases: Iterable[Phase], inner: Iterable[InnerPhase], began: float) -> tuple[Phase, ...]:
    """All phases of what began then, in order."""
    moved = (replace(each.phase, started_s=max(0.0, each.began - began)) for each in inner)
    return tuple(sorted((*phases, *moved), key=lambda phase: phase.started_s))
