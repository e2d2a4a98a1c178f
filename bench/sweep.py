"""Sweeps: what an engine costs a cell, a driver of 100,000 cells, and a cluster whose parts are killed at random.

    python bench/sweep.py overhead [CELLS]    a cell by hand, on this machine's engine, and on Ray, interleaved
    python bench/sweep.py driver [CELLS]      no-op cells on an engine in memory: speed, the driver's memory, the folder
    python bench/sweep.py kills [CELLS]       a Ray cluster of three nodes: a raylet, a whole node and the driver are killed

`overhead` and `kills` need ray: pip install 'pytest-llmmem[sweep]'.
"""

import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from _run import MB, Middle, table, verdict

from pytest_llmmem.probes import descendants
from pytest_llmmem.sweep.driver import Engine, Finished, Lost, run
from pytest_llmmem.sweep.jobs import Job, run_job
from pytest_llmmem.sweep.local import Local
from pytest_llmmem.sweep.placement import Node
from pytest_llmmem.sweep.results import Results

NODES = (2_500 * MB, 1_500 * MB, 1_500 * MB)
FEW = {"object_store_memory": 80 * MB, "include_dashboard": False}


def noop(number: int, code: str = "pass", **fields: Any) -> Job:
    return Job(
        name=f"cells/{number}", python=sys.executable, arguments=("-S", "-c", code), memory_bytes=400 * MB, **fields
    )


@contextmanager
def cluster() -> Iterator[tuple[Any, list[Any]]]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "memory": 1, **FEW})
    try:
        yield made, [made.add_node(num_cpus=4, memory=memory, **FEW) for memory in NODES]
    finally:
        made.shutdown()


def overhead(cells: int = 30) -> None:
    """Warm: the second and later jobs of an engine, one after the other."""
    from pytest_llmmem.sweep.on_ray import Cluster

    with cluster() as (made, _):
        engines: dict[str, Engine] = {"local": Local(), "Ray": Cluster(made.address)}
        times: dict[str, list[float]] = {"by hand": [], **{name: [] for name in engines}}
        for number in range(cells + 3):
            for name in random.sample(list(times), len(times)):
                began = time.perf_counter()
                if name == "by hand":
                    run_job(noop(number).to_json())
                else:
                    list(run([noop(number)], engines[name]))
                times[name].append(time.perf_counter() - began)
        for engine in engines.values():
            engine.close()
    by_hand = statistics.median(times["by hand"][3:])
    rows = [
        (name, f"{Middle.of(found[3:]):.3f}", f"{statistics.median(found[3:]) - by_hand:.3f}")
        for name, found in times.items()
    ]
    table(("a no-op cell", "seconds", "over by hand"), *rows)
    print("goal: Ray at most 0.2 s over by hand:", verdict(statistics.median(times["Ray"][3:]) - by_hand <= 0.2))


class InMemory:
    """An engine whose jobs end at once, with a result like that of a cell of 13 checks."""

    def __init__(self, result: dict[str, Any]) -> None:
        self._nodes = [
            Node(id=str(number), name=str(number), memory_bytes=64_000 * MB, cpus=16) for number in range(40)
        ]
        self._result, self._running = result, list[Job]()

    def nodes(self) -> Sequence[Node]:
        return self._nodes

    def start(self, job: Job, node: Node) -> None:
        self._running.append(job)

    def wait(self, timeout_s: float) -> Sequence[Finished | Lost]:
        ended, self._running = self._running, []
        return [Finished(job=job, result=self._result) for job in ended]

    def close(self) -> None:
        """Nothing runs."""


def driver(cells: int = 100_000) -> None:
    result = {
        "exit_code": 0,
        "error": None,
        "timed_out": False,
        "report": None,
        "stdout": "",
        "stderr": "",
        "seconds": 1.0,
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        results = Results(Path(folder))
        jobs = [noop(number) for number in range(cells)]
        began = time.perf_counter()
        for ended in run(jobs, InMemory(result)):
            results.keep(ended)
        took = time.perf_counter() - began
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        left = sum(results.load(job) is None for job in jobs)
        resumed = time.perf_counter() - began
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.json"))
        table(
            ("cells", "seconds", "cells/s", "driver's memory", "before", "to resume", "folder"),
            (
                cells,
                f"{took:.1f}",
                f"{cells / took:.0f}",
                f"{memory / 1000:.0f} MB",
                f"{before / 1000:.0f} MB",
                f"{resumed:.1f} s",
                f"{size / MB:.0f} MB",
            ),
        )
        assert left == 0


SWEEP = """
models = {models}
loads = ["default", "float16"]
tests = ["test_zoo.py"]
arguments = ["-p", "no:randomly"]
memory = "600MB"
timeout = 120
"""
TESTS = """
import os, time
import pytest

@pytest.mark.in_worker
def test_takes_a_while():
    time.sleep(float(os.environ.get("BENCH_SLEEP", "1")))

@pytest.mark.in_worker
def test_crashes():
    os.abort()
"""


def kills(cells: int = 40) -> None:
    """The whole command, on small cells: torch is imported by the base's measurement alone."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, cluster() as (made, nodes):
        folder = Path(name)
        sources = [f"synthetic:tiny-llama?shard={number + 1}MB" for number in range(cells // 2)]
        (folder / "sweep.toml").write_text(SWEEP.format(models=json.dumps(sources)))
        (folder / "test_zoo.py").write_text(TESTS)
        done = folder / "results" / "cells"
        began = time.monotonic()
        command = [sys.executable, "-m", "pytest_llmmem", "sweep", "--on", made.address]
        process = start(command, folder)
        seen: dict[str, int] = {}
        events = {
            "raylet": random.randint(3, cells // 4),
            "node": random.randint(cells // 4, cells // 2),
            "driver": random.randint(cells // 2, 3 * cells // 4),
        }
        print("killed at these results:", events)
        sessions, left = list[int](), list[int]()
        while process.poll() is None:
            count = 0
            for path in done.rglob("*.json"):
                count += 1
                written = path.stat().st_mtime_ns
                assert seen.setdefault(str(path), written) == written, f"{path} was run twice"
            for what, at in list(events.items()):
                if count >= at:
                    del events[what]
                    print(f"{time.monotonic() - began:5.0f} s, {count} results: SIGKILL of {what}", flush=True)
                    if what == "driver":
                        sessions = [pid for pid in descendants(os.getpid()) if b"report.json" in cmdline(pid)]
                        process.kill()
                        process.wait()
                        time.sleep(2)
                        left = [pid for pid in sessions if cmdline(pid)]
                        process = start(command, folder)
                    else:
                        node = nodes[1 if what == "raylet" else 2]
                        pid = node.all_processes["raylet"][0].process.pid
                        for each in [pid] if what == "raylet" else [pid, *descendants(pid)]:
                            end(each)
                        nodes.append(made.add_node(num_cpus=4, memory=1_500 * MB, **FEW))
            time.sleep(0.2)
        stored = [json.loads(path.read_text()) for path in done.rglob("*.json")]
        print(process.stdout.read()[-600:] if process.stdout else "")
        claims = most_claimed(stored)
    table(
        ("cells", "results", "exit", "seconds", "sessions left 2 s after the driver", "tried again"),
        (
            cells,
            len(stored),
            process.returncode,
            f"{time.monotonic() - began:.0f}",
            f"{len(left)} of {len(sessions)}",
            sum(each["tries"] > 1 for each in stored),
        ),
    )
    table(
        ("node", "cells", "most claimed at once"),
        *((node, count, f"{most / MB:.0f} MB") for node, (count, most) in claims.items()),
    )
    fine = len(stored) == cells and not left and not events and all(each["exit_code"] == 1 for each in stored)
    print("every cell has one result, of its own tests:", verdict(fine))


def most_claimed(stored: Sequence[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    found = {}
    for node in sorted({each["node"] for each in stored}):
        here = [each for each in stored if each["node"] == node]
        moments = [(each["began"], each["job"]["memory_bytes"]) for each in here]
        moments += [(each["began"] + each["seconds"], -each["job"]["memory_bytes"]) for each in here]
        claimed = most = 0
        for _, change in sorted(moments):
            claimed += change
            most = max(most, claimed)
        found[node] = len(here), most
    return found


def start(command: list[str], folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    chosen, *rest = sys.argv[1:] or ["driver"]
    {"overhead": overhead, "driver": driver, "kills": kills}[chosen](*map(int, rest))
