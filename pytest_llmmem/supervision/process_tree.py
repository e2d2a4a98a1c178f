"""The processes that a worker has started: found every 50 ms, measured together, and rank by rank."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pytest_llmmem import probes
from pytest_llmmem.core.children import ChildrenRecord, children_record
from pytest_llmmem.core.meter import Window
from pytest_llmmem.core.readings import Reading, Tree
from pytest_llmmem.core.record_parts import RankRecord
from pytest_llmmem.supervision.started_processes import StartedProcesses
from pytest_llmmem.workers.worker import Worker

_ATTEMPTS: Final = 3


@dataclass(slots=True)
class ProcessTree:
    """A worker's descendants."""

    worker: Worker
    had_children: bool = False
    """Whether there ever were any."""
    _children_at_most: ChildrenRecord | None = None
    _most_bytes: int = 0
    """With living children."""
    _alone_bytes: int = 0
    """When all of them had ended."""
    _started: StartedProcesses = field(init=False)

    def __post_init__(self) -> None:
        self._started = StartedProcesses(probes.command(self.worker.pid))

    def sample(self, reading: Reading) -> Tree | None:
        """Memory of the worker and its descendants together, shared pages once; ``None`` when it is alone.

        ``reading`` is the worker's own memory now.
        """
        found: list[tuple[Tree, list[tuple[str, ...]]]] = []
        children = self._children()
        for _ in range(_ATTEMPTS):
            living = self._living(children)
            if not children or self.worker.pid not in living:
                return None
            self.had_children = True
            # first, since one that has ended has no command any more
            commands = [command for pid in children if (command := probes.command(pid))]
            found.append((self.worker.shared_with(children), commands))
            children = self._children()
            if self._living(children) == living:
                found = found[-1:]
                break  # else one came or went meanwhile, and pages that it shared were counted too often, or not at all
        self._started.sample(children)
        tree, commands = min(found, key=lambda each: each[0].unreclaimable_bytes)
        self._note_highest(tree, reading, commands)
        return tree

    def _note_highest(self, tree: Tree, reading: Reading, commands: Sequence[tuple[str, ...]]) -> None:
        if tree.unreclaimable_bytes <= self._most_bytes:
            return
        if not commands:  # all have ended, and have not been waited for
            self._alone_bytes = max(self._alone_bytes, tree.unreclaimable_bytes)
            return
        self._most_bytes = tree.unreclaimable_bytes
        alone = self.worker.tree_with(reading)
        self._children_at_most = children_record(
            commands,
            of_worker=self._started.of_worker,
            size=tree.unreclaimable_bytes - alone.unreclaimable_bytes,
        )

    def written_bytes(self) -> int | None:
        """Bytes that the worker and its descendants wrote to storage since they began; ``None`` where that is unknown."""
        written = [probes.written_bytes(pid) for pid in (self.worker.pid, *probes.descendants(self.worker.pid))]
        known = [size for size in written if size is not None]
        return sum(known) if known else None

    def told(self, whole: Window | None) -> ChildrenRecord | None:
        """The children when all processes together held most, beside the job's window; ``None`` for a little memory."""
        children = self._children_at_most
        if children is None or whole is None or not children.is_told:
            return None
        return replace(
            children,
            each=self._started.records(),
            in_peak=whole.is_peak_of_tree and self._most_bytes >= self._alone_bytes,
        )

    def ranks(self) -> tuple[RankRecord, ...]:
        """The peak of each rank of a distributed launch, in order."""
        return self._started.ranks()

    def _children(self) -> tuple[int, ...]:
        """Descendants with memory of their own: between ``vfork`` and ``exec`` a child is in its parent's."""
        found: list[int] = []
        for pid in probes.descendants(self.worker.pid):
            if not any(probes.shares_memory(pid, other) for other in (self.worker.pid, *found)):
                found.append(pid)
        return tuple(found)

    def _living(self, children: Iterable[int]) -> list[int]:
        """The worker, its children and siblings that still own memory."""
        return [pid for pid in (self.worker.pid, *children, *self.worker.siblings()) if probes.has_memory(pid)]
