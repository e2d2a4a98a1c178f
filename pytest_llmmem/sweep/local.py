"""The engine without a cluster: as many jobs at once as fit on one machine, the one that it runs on."""

import os
import queue
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pytest_llmmem import probes
from pytest_llmmem.probes.devices import VISIBLE, visible_gpus
from pytest_llmmem.sweep.driver import Finished, Lost
from pytest_llmmem.sweep.jobs import Job, run_job
from pytest_llmmem.sweep.placement import Node

_RESERVE_BYTES: Final = 512 * 2**20
_RESERVE: Final = 0.05
"""Left free, as the guard of a session leaves it: the larger of the two."""


class Local:
    """Runs jobs in threads, which wait for their processes."""

    def __init__(self) -> None:
        host = probes.host_memory()
        reserve_bytes = max(_RESERVE_BYTES, round(_RESERVE * host.total_bytes))
        self._free = dict.fromkeys(visible_gpus(), 1.0)
        """Free share of each GPU."""
        self._node = Node(
            id="local",
            name="this machine",
            memory_bytes=max(0, host.available_bytes - reserve_bytes),
            cpus=os.cpu_count() or 1,
            gpus=len(self._free),
        )
        self._ended: queue.SimpleQueue[Finished | Lost] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def nodes(self) -> Sequence[Node]:
        return (self._node,)

    def start(self, job: Job, node: Node) -> None:
        cards = self._take(job.gpus)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=self._run, args=(job, cards)))
        self._threads[-1].start()

    def wait(self, timeout_s: float) -> Sequence[Finished | Lost]:
        ended: list[Finished | Lost] = []
        try:
            ended.append(self._ended.get(timeout=timeout_s))
            while True:
                ended.append(self._ended.get_nowait())
        except queue.Empty:
            return ended

    def close(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self, job: Job, cards: Sequence[str]) -> None:
        seen = {VISIBLE: ",".join(cards)} if cards else {}
        started = replace(job, variables={**seen, **job.variables})
        try:
            result = run_job(started.to_json(), is_stopped=self._stopped.is_set)
        except OSError as error:
            self._ended.put(Lost(job=job, why=str(error)))  # such as a full disk for its folder
        else:
            self._ended.put(Finished(job=job, result=result))
        finally:
            self._give_back(cards, job.gpus)

    def _take(self, gpus: float) -> tuple[str, ...]:
        """Cards for a job: a part of the one that has least left, or whole ones."""
        free = sorted(self._free, key=lambda card: self._free[card], reverse=gpus >= 1)
        fitting = [card for card in free if self._free[card] >= min(1.0, gpus)] or free
        cards = tuple(fitting[: -int(-gpus // 1)])
        for card in cards:
            self._free[card] -= min(1.0, gpus)
        return cards

    def _give_back(self, cards: Sequence[str], gpus: float) -> None:
        for card in cards:
            self._free[card] += min(1.0, gpus)
