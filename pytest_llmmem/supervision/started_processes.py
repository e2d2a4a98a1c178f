"""The processes that a test has started, one by one: the command, the rank and the peak of each."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pytest_llmmem import probes
from pytest_llmmem.core.children import ChildRecord, command_words
from pytest_llmmem.core.launch import rank_in_launch
from pytest_llmmem.core.record_parts import RankRecord

_MOST: Final = 32
"""Processes that are followed: each takes a tenth of a millisecond in every sample of the tree."""


@dataclass(slots=True)
class StartedProcesses:
    """The children of a worker, as they were seen."""

    of_worker: Sequence[str]
    """The command of the worker."""
    _seen: dict[int, ChildRecord] = field(default_factory=dict)
    _commands: set[tuple[str, ...]] = field(default_factory=set)
    _forks: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Commands of those that may be forks: another ran the same before. With a program of its own each begins anew."""

    def sample(self, children: Sequence[int]) -> None:
        """Read the memory of each."""
        for pid in children:
            if pid in self._seen or len(self._seen) < _MOST:
                self._sample(pid)

    def records(self) -> tuple[ChildRecord, ...]:
        """Every process, the largest first."""
        return tuple(sorted(self._seen.values(), key=lambda each: -each.peak_bytes))

    def ranks(self) -> tuple[RankRecord, ...]:
        """The ranks of a launch, in order; of several launches, the highest peak of each rank."""
        found: dict[int, RankRecord] = {}
        for each in self._seen.values():
            if each.rank is not None:
                before = found.get(each.rank, RankRecord(rank=each.rank, peak_bytes=0, peak_resident_bytes=0))
                found[each.rank] = replace(
                    before,
                    peak_bytes=max(before.peak_bytes, each.peak_bytes),
                    peak_resident_bytes=max(before.peak_resident_bytes, each.peak_resident_bytes),
                )
        return tuple(found[rank] for rank in sorted(found))

    def _sample(self, pid: int) -> None:
        command = probes.command(pid)
        with contextlib.closing(probes.open_memory(pid)) as memory:
            reading = memory.read()
        if reading is None or not command or probes.command(pid) != command:
            return  # it has ended, or has left the memory that it was forked with for a program of its own
        if self._forks.get(pid, command) != command:
            del self._seen[pid], self._forks[pid]
        if pid not in self._seen:
            self._describe(pid, command)
        before = self._seen[pid]
        self._seen[pid] = replace(
            before,
            peak_bytes=max(before.peak_bytes, reading.unreclaimable_bytes),
            peak_resident_bytes=max(before.peak_resident_bytes, reading.mark_bytes or reading.resident_bytes),
        )

    def _describe(self, pid: int, command: tuple[str, ...]) -> None:
        if command == tuple(self.of_worker) or command in self._commands:
            self._forks[pid] = command
        self._commands.add(command)
        self._seen[pid] = ChildRecord(
            command=command_words(command, of_worker=self.of_worker),
            rank=rank_in_launch(probes.environment(pid), os.environ),
            peak_bytes=0,
            peak_resident_bytes=0,
        )
