"""Runs jobs on an engine until each has a result.

A crash of the job itself is a result. A job that was lost with its node goes to another one.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.sweep.jobs import Job
from pytest_llmmem.sweep.placement import Node, fits_nowhere, place, rooms

_TRIES: Final = 5
_MORE: Final = 1.5
"""Times as much memory is claimed for a job that a node has run out of memory with."""
_WAIT_S: Final = 1.0
_NO_NODE_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A job that ran to its end, whatever that was."""

    job: Job
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A job that was lost, probably not because of its own error."""

    job: Job
    why: str
    needs_more_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A job that has no result."""

    why: str


class Engine(Protocol):
    """Executor of jobs."""

    def nodes(self) -> Sequence[Node]:
        """Those that live now. Raises ``LlmmemError`` when the engine itself is gone."""

    def start(self, job: Job, node: Node) -> None:
        """Returns at once."""

    def wait(self, timeout_s: float) -> Sequence[Finished | Lost]:
        """Jobs that ended since the last call; empty when none did in that time. Raises as ``nodes``."""

    def close(self) -> None:
        """End what still runs."""


@dataclass(slots=True)
class State:
    """The state of a driver at one moment, for display."""

    nodes: Sequence[Node] = ()
    running: dict[str, tuple[Job, Node]] = field(default_factory=dict)
    waiting: Sequence[Job] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A job with its result, or without one."""

    job: Job
    """The job as it was requested."""
    node: str | None
    tries: int
    result: Mapping[str, Any] | Missing


def run(jobs: Iterable[Job], engine: Engine, *, watch: Callable[[State], None] = lambda _: None) -> Iterator[Ended]:
    """Yield each job as it ends: the largest first, so that none of them is left for the end."""
    asked = {job.name: job for job in jobs}
    tries: dict[str, int] = {}
    homes: dict[str, frozenset[str]] = {}
    state = State(waiting=sorted(asked.values(), key=lambda job: -job.memory_bytes))
    while state.waiting or state.running:
        state.nodes = _nodes(engine, state)
        placed, state.waiting = place(state.waiting, rooms(state.nodes, state.running.values()), homes)
        for job, node in placed:
            engine.start(job, node)
            state.running[job.name] = job, node
        if not state.running:
            # a node that comes later may have room, so what fits nowhere is settled when nothing else is left to do
            for job in state.waiting:
                yield Ended(job=asked[job.name], node=None, tries=0, result=Missing(why=_nowhere(job, state.nodes)))
            return
        watch(state)
        for ended in engine.wait(_WAIT_S):
            job, node = state.running.pop(ended.job.name)
            tries[job.name] = tries.get(job.name, 0) + 1
            if isinstance(ended, Finished):
                homes[job.model or ""] = homes.get(job.model or "", frozenset()) | {node.id}
                yield Ended(job=asked[job.name], node=node.name, tries=tries[job.name], result=ended.result)
            elif tries[job.name] < _TRIES:
                memory_bytes = round(_MORE * job.memory_bytes) if ended.needs_more_memory else job.memory_bytes
                state.waiting = [replace(job, memory_bytes=memory_bytes), *state.waiting]
            else:
                missing = Missing(why=f"lost {_TRIES} times, at last on {node.name}: {ended.why}")
                yield Ended(job=asked[job.name], node=node.name, tries=tries[job.name], result=missing)
        watch(state)


def _nodes(engine: Engine, state: State) -> Sequence[Node]:
    """The nodes; waits for one while there is none."""
    end = time.monotonic() + _NO_NODE_S
    while not (nodes := engine.nodes()) and not state.running:
        if time.monotonic() > end:
            msg = f"no node has been there for {_NO_NODE_S:.0f} s: start some, and run the same command again to go on"
            raise LlmmemError(msg)
        time.sleep(_WAIT_S)
    return nodes


def _nowhere(job: Job, nodes: Sequence[Node]) -> str:
    assert fits_nowhere(job, nodes), "a job that fits an empty node is placed while nothing runs"
    largest = max(nodes, key=lambda node: node.memory_bytes)
    needs = f"needs {format_size(job.memory_bytes)}, {job.cpus:g} CPUs" + (f", {job.gpus:g} GPUs" if job.gpus else "")
    has = f"{format_size(largest.memory_bytes)}, {largest.cpus:g} CPUs" + (
        f", {largest.gpus:g} GPUs" if job.gpus else ""
    )
    return f"fits no node: it {needs}, and the largest node, {largest.name}, has {has}"
