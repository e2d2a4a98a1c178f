"""What the sampler makes of the driver's answers; whether they are such answers, the names of NVML's own package say."""

import inspect
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmmem.probes import driver
from pytest_llmmem.probes.devices import Device
from pytest_llmmem.probes.nvml_sampler import Sampler, Usage
from tests import nvml
from tests.conftest import needs

GB = 10**9


class Nvml:
    """One card, or one that is cut into instances."""

    NVMLError = nvml.NVMLError
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, *, instances: tuple[int, ...] = (), count: int = 1) -> None:
        self.instances, self.count = instances, count
        self.forbidden: set[str] = set()
        self.without_memory: set[str] = set()
        self.used: dict[str, int] = {}
        self.processes: dict[str, dict[int, int | None]] = {}
        self.refuses_to_list = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        if f"GPU-{index}" in self.forbidden:
            raise nvml.NVMLError
        return f"GPU-{index}"

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        return [1 if self.instances else 0, 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, slot: int) -> str:  # noqa: N802
        if slot not in self.instances:
            raise nvml.NVMLError
        return f"MIG-{slot}"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        if handle in self.without_memory:
            raise nvml.NVMLError
        return SimpleNamespace(used=self.used.get(handle, 0))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        if self.refuses_to_list:
            raise nvml.NVMLError
        listed = self.processes.get(handle, {})
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in listed.items()]


def test_an_answer_has_the_most_since_the_one_before() -> None:
    card = Nvml()
    sampler = Sampler(card, knows_our_pids=False)
    sampler.answer([7, 8])

    for sizes in ({7: 3, 8: 1}, {7: 4}, {9: 50}):
        card.processes = {"GPU-0": dict(sizes)}
        card.used = {"GPU-0": sum(sizes.values())}
        sampler.sample()

    assert sampler.answer([7, 8]) == {"0": Usage(used_bytes=50, peak_used_bytes=50, own_bytes=None, peak_own_bytes=4)}
    card.used = {"GPU-0": 2}
    assert sampler.answer([7]) == {"0": Usage(used_bytes=2, peak_used_bytes=2, own_bytes=None, peak_own_bytes=None)}


@pytest.mark.parametrize("refuses", [True, False], ids=["no list", "a list without sizes"])
def test_what_a_driver_does_not_say_is_unknown(*, refuses: bool) -> None:
    card = Nvml()
    card.used, card.processes, card.refuses_to_list = {"GPU-0": 5}, {"GPU-0": {7: None}}, refuses

    (usage,) = Sampler(card, knows_our_pids=True).answer([7]).values()

    assert (usage.used_bytes, usage.own_bytes, usage.peak_own_bytes) == (5, None, None)


def test_of_a_card_that_is_cut_into_instances_these_are_the_devices() -> None:
    assert Sampler(Nvml(instances=(2, 5)), knows_our_pids=True).cards == ("2", "5")
    assert Sampler(Nvml(), knows_our_pids=True).cards == ("0",)


@pytest.mark.parametrize(("knows_our_pids", "own"), [(True, 0), (False, None)])
def test_who_is_not_listed_beside_others_holds_nothing_unless_ids_are_a_containers(
    *, knows_our_pids: bool, own: int | None
) -> None:
    card = Nvml()
    card.used, card.processes = {"GPU-0": 5}, {"GPU-0": {9: 5}}

    (usage,) = Sampler(card, knows_our_pids=knows_our_pids).answer([7]).values()

    assert (usage.used_bytes, usage.own_bytes, usage.peak_own_bytes) == (5, own, own)


def test_a_card_that_does_not_answer_hides_no_other() -> None:
    card = Nvml(count=4)
    card.forbidden, card.without_memory = {"GPU-1"}, {"GPU-2"}

    sampler = Sampler(card, knows_our_pids=True)
    assert sampler.cards == ("0", "3")

    card.without_memory = {"GPU-0", "GPU-2"}
    assert list(sampler.answer([7])) == ["3"]


@needs("pynvml")
@pytest.mark.parametrize("stand_in", [nvml, Nvml], ids=["of the workers", "of this file"])
def test_nvml_has_these_functions_with_the_same_arguments(stand_in: Any) -> None:
    import pynvml

    for name, function in inspect.getmembers(stand_in, inspect.isfunction):
        if name.startswith("nvml"):
            arguments = [each for each in inspect.signature(function).parameters if each != "self"]
            inspect.signature(getattr(pynvml, name)).bind(*arguments)
    assert pynvml.NVML_DEVICE_MIG_ENABLE == stand_in.NVML_DEVICE_MIG_ENABLE


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """One card, of a driver that the sampler finds in the current folder."""
    (tmp_path / "pynvml.py").write_text(Path(nvml.__file__).read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-c", "import pynvml; pynvml.set_up([24])"], check=True)
    return [Device(name="cuda:0", total_bytes=24, card="card-0")]


def test_a_sampler_that_dies_is_silent_for_good(cards: list[Device]) -> None:
    asked = driver.Nvml.start(cards)
    assert [reading.device for reading in asked.ask([1], patience_s=2)] == ["cuda:0"]

    asked._process.kill()
    asked._process.wait()

    assert asked.ask([1], patience_s=2) == ()
    assert asked.why_none
    assert asked.ask([1], patience_s=2) == ()
    asked.close()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a signal that stops a process")
def test_a_sampler_that_is_slow_is_heard_later(cards: list[Device]) -> None:
    asked = driver.Nvml.start(cards)
    asked._process.send_signal(signal.SIGSTOP)
    assert (asked.ask([1], patience_s=0.1), asked.ask([1], patience_s=0.1)) == ((), ())

    asked._process.send_signal(signal.SIGCONT)

    deadline = time.monotonic() + 30
    while not (readings := asked.ask([1], patience_s=2)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [reading.device for reading in readings] == ["cuda:0"]
    assert not asked.why_none
    asked.close()


def test_a_driver_that_does_not_know_torch_s_devices_is_not_asked(cards: list[Device]) -> None:
    other = driver.Nvml.start([Device(name="cuda:0", total_bytes=24, card="another")])

    assert other.why_none == "it does not list the devices that torch finds"
    other.close()


def test_the_sampler_ends_with_its_input(cards: list[Device]) -> None:
    command = [sys.executable, "-m", "pytest_llmmem.probes.nvml_sampler"]
    done = subprocess.run(command, input="[1]\n", capture_output=True, text=True, timeout=30, check=True)

    hello, answer = map(json.loads, done.stdout.splitlines())
    assert hello == {"cards": ["card-0"]}
    assert answer["card-0"]["used_bytes"] == 0
