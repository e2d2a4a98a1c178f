"""A sweep on a real Ray cluster of several nodes, one of which is killed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_llmmem.core.errors import SettingError
from tests.conftest import needs

pytestmark = [needs("ray"), needs("/proc")]

DRIVER = """
import json, sys
from pathlib import Path

from pytest_llmmem.sweep.driver import run
from pytest_llmmem.sweep.jobs import Job
from pytest_llmmem.sweep.on_ray import Cluster
from pytest_llmmem.sweep.results import Results

address, folder = sys.argv[1:]
slow = f"import os, time; open('{folder}/' + str(os.getpid()), 'w').close(); time.sleep(2)"
code = {0: "import os; os.kill(os.getpid(), 9)", 1: "raise SystemExit(3)"}
jobs = [
    Job(name=f"cells/{number}", python=sys.executable, arguments=("-c", code.get(number, slow)), memory_bytes=400_000_000)
    for number in range(8)
]
jobs.append(Job(name="cells/wide", python=sys.executable, arguments=("-c", slow), memory_bytes=10**13))
engine, results = Cluster(address), Results(Path(folder))
try:
    for ended in run([job for job in jobs if results.load(job) is None], engine):
        results.keep(ended)
        why = getattr(ended.result, "why", "")
        print(json.dumps([ended.job.name, ended.node, ended.tries, why]), flush=True)
finally:
    engine.close()
"""


@pytest.mark.timeout(240)
def test_every_cell_has_one_result_though_a_node_and_the_driver_are_killed(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    few = {"object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "memory": 1, **few})
    try:
        nodes = [cluster.add_node(num_cpus=4, memory=memory, **few) for memory in (900_000_000, 500_000_000)]
        results = tmp_path / "cells"

        driver = start(cluster.address, tmp_path)
        wait_for(lambda: len(list(results.glob("*.json"))) >= 3, driver)
        os.kill(nodes[1].all_processes["raylet"][0].process.pid, signal.SIGKILL)
        wait_for(lambda: len(list(results.glob("*.json"))) >= 5, driver)
        driver.kill()
        driver.communicate()
        processes = [int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal()]
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))
        kept = {path.name: path.stat().st_mtime_ns for path in results.glob("*.json")}
        second = start(cluster.address, tmp_path)
        told, problems = second.communicate(timeout=120)
    finally:
        cluster.shutdown()

    assert second.returncode == 0, problems
    assert {path.name for path in results.glob("*.json")} == {f"{number}.json" for number in range(8)}
    assert {name: (results / name).stat().st_mtime_ns for name in kept} == kept
    assert "fits no node: it needs 10.0 TB" in told
    codes = [read(results / f"{number}.json")["exit_code"] for number in range(8)]
    assert codes == [-signal.SIGKILL, 3, *[0] * 6]


def test_a_cluster_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text('models = ["synthetic:tiny-llama"]')

    done = subprocess.run(
        [sys.executable, "-m", "pytest_llmmem", "sweep", "--on", "auto"],
        check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=os.environ | {"RAY_ADDRESS": ""},
    )  # fmt: skip

    assert done.returncode == 2
    assert done.stderr.startswith("llmmem: --on auto: no Ray cluster can be reached there")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("127.0.0.1:1", "no Ray cluster can be reached there (Connection refused): start one with 'ray start --head'"),
        ("ray://127.0.0.1:1", "no Ray cluster can be reached there (Connection refused): start one"),
        ("cluster", "this is no address: write local, auto, HOST:PORT, or ray://HOST:PORT"),
        ("127.0.0.1:99999", "this is no address: write local, auto, HOST:PORT, or ray://HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_said_at_once(address: str, complaint: str) -> None:
    from pytest_llmmem.sweep.on_ray import Cluster

    with pytest.raises(SettingError) as raised:
        Cluster(address)

    assert str(raised.value).startswith(f"--on {address}: {complaint}")


def start(address: str, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER), address, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(there: Callable[[], bool], driver: "subprocess.Popen[str]") -> None:
    wait_until(lambda: there() or driver.poll() is not None)
    assert driver.poll() is None, driver.communicate()[1]


def wait_until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not there():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def read(path: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return document
