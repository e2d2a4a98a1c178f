"""Placement of jobs on nodes: a pure function, so that no node is ever promised more than it has."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_llmmem.sweep.jobs import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine, and what jobs may reserve on it."""

    id: str
    name: str
    memory_bytes: int
    cpus: float
    gpus: float = 0.0


@dataclass(slots=True)
class Room:
    """Free resources of a node."""

    node: Node
    memory_bytes: float
    cpus: float
    gpus: float

    def fits(self, job: Job) -> bool:
        return job.memory_bytes <= self.memory_bytes and job.cpus <= self.cpus and job.gpus <= self.gpus

    def take(self, job: Job) -> None:
        self.memory_bytes -= job.memory_bytes
        self.cpus -= job.cpus
        self.gpus -= job.gpus


def rooms(nodes: Iterable[Node], running: Iterable[tuple[Job, Node]]) -> dict[str, Room]:
    """Free resources of each node beside its running jobs, by the node's id."""
    found = {node.id: Room(node, node.memory_bytes, node.cpus, node.gpus) for node in nodes}
    for job, node in running:
        if node.id in found:
            found[node.id].take(job)
    return found


def place(
    waiting: Sequence[Job], left: Mapping[str, Room], homes: Mapping[str, frozenset[str]]
) -> tuple[list[tuple[Job, Node]], list[Job]]:
    """Start as many as fit, in their order; returns what starts where, and what goes on waiting.

    Of the nodes with room, one that has the job's model (``homes``: node ids by model) is taken first, then the one with
    the most memory left. ``left`` is used up.
    """
    placed: list[tuple[Job, Node]] = []
    for job in waiting:
        if not any(room.cpus > 0 for room in left.values()):
            break
        fitting = [room for room in left.values() if room.fits(job)]
        if fitting:
            at_home = homes.get(job.model or "", frozenset())
            room = max(fitting, key=lambda room: (room.node.id in at_home, room.memory_bytes))
            room.take(job)
            placed.append((job, room.node))
    names = {job.name for job, _ in placed}
    return placed, [job for job in waiting if job.name not in names]


def fits_nowhere(job: Job, nodes: Sequence[Node]) -> bool:
    """Whether no node could run it, were it empty."""
    return not any(Room(node, node.memory_bytes, node.cpus, node.gpus).fits(job) for node in nodes)
