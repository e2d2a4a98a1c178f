"""A Ray cluster as an engine; the only importer of ray.

The driver places each job itself, so it knows what runs where, and Ray admits it by the same numbers: ``memory`` is a claim
in Ray, which nothing enforces. What Ray reports as an error is the cluster's fault; a job's own end is always a result.
"""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pytest_llmmem.core.errors import LlmmemError, SettingError
from pytest_llmmem.sweep.driver import Finished, Lost
from pytest_llmmem.sweep.jobs import Job, run_job
from pytest_llmmem.sweep.placement import Node

_INSTALL: Final = "--on {address}: Ray is not installed here: pip install 'pytest-llmmem[sweep]', or use --on local"

_NOT_THERE: Final = "--on {address}: no Ray cluster can be reached there ({why}): start one with 'ray start --head'"
_CONNECT_S: Final = 10.0
_LAST_PORT: Final = 65535


class Cluster:
    """Runs jobs as tasks; each starts its own process on the node."""

    def __init__(self, address: str) -> None:
        """``"auto"``, ``"HOST:PORT"`` or ``"ray://HOST:PORT"``. Raises ``SettingError`` when there is no such cluster."""
        # read when ray is imported: 'auto' may know the address of a cluster that was killed, and each try takes 40 s
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
        try:
            import ray
        except ImportError:
            raise SettingError(_INSTALL.format(address=address)) from None
        _check_address(address)
        self._ray = ray
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # noqa: BLE001 -- whatever Ray raises, there is no cluster to use
            line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise SettingError(_NOT_THERE.format(address=address, why=line)) from None
        # a crash of a job is its result, and what was lost is retried by the driver, which knows why
        self._task = ray.remote(max_retries=0)(_run_on_node)
        self._running: dict[Any, Job] = {}

    def nodes(self) -> Sequence[Node]:
        with _fatal():
            return tuple(
                Node(
                    id=node["NodeID"],
                    name=f"{node['NodeManagerHostname']}:{node['NodeID'][:6]}",
                    memory_bytes=int(node["Resources"].get("memory", 0)),
                    cpus=node["Resources"].get("CPU", 0.0),
                    gpus=node["Resources"].get("GPU", 0.0),
                )
                for node in self._ray.nodes()
                if node["Alive"] and node["Resources"].get("CPU")
            )

    def start(self, job: Job, node: Node) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options = {
            "name": job.name,
            "num_cpus": job.cpus,
            "num_gpus": job.gpus,
            "memory": job.memory_bytes,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False),
        }
        with _fatal():
            self._running[self._task.options(**options).remote(job.to_json())] = job

    def wait(self, timeout_s: float) -> Sequence[Finished | Lost]:
        with _fatal():
            references = list(self._running)
            ready, _ = self._ray.wait(references, num_returns=1, timeout=timeout_s)
            if ready:
                ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
            return [self._ended(reference) for reference in ready]

    def close(self) -> None:
        """Ray ends the tasks of a driver that goes, and their processes end with them."""
        self._ray.shutdown()

    def _ended(self, reference: Any) -> Finished | Lost:
        from ray.exceptions import LocalRayletDiedError, OutOfMemoryError, RayError, RayTaskError

        job = self._running.pop(reference)
        try:
            return Finished(job=job, result=self._ray.get(reference))
        except LocalRayletDiedError:
            raise
        except RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
            # what was raised on the node comes as a traceback, everything else as a sentence and its details
            why = f"{type(error).__name__}: {lines[-1] if isinstance(error, RayTaskError) else lines[0]}"
            return Lost(job=job, why=why, needs_more_memory=isinstance(error, OutOfMemoryError))


def _check_address(address: str) -> None:
    """Raise ``SettingError`` where nothing listens: Ray itself would try for more than five minutes."""
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > _LAST_PORT:
        msg = f"--on {address}: this is no address: write local, auto, HOST:PORT, or ray://HOST:PORT"
        raise SettingError(msg)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise SettingError(_NOT_THERE.format(address=address, why=error.strerror or error)) from None


def _run_on_node(job: Mapping[str, Any]) -> dict[str, Any]:
    return run_job(job)


@contextlib.contextmanager
def _fatal() -> Iterator[None]:
    """Have the end of the cluster, as its driver sees it, in one sentence."""
    from ray.exceptions import LocalRayletDiedError, RaySystemError

    try:
        yield
    except (LocalRayletDiedError, RaySystemError, ConnectionError) as error:
        msg = f"the cluster cannot be used any more ({type(error).__name__}): run the same command again to go on"
        raise LlmmemError(msg) from None
