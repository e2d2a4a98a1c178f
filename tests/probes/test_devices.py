"""What torch is asked about devices, in a process of its own, and what is said where it cannot be."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_llmmem import probes
from pytest_llmmem.probes import devices
from tests.conftest import needs
from tests.sample_gpu import GB, Torch


@pytest.fixture(autouse=True)
def asked_anew() -> None:
    devices._ask.cache_clear()


def test_devices_are_named_as_torch_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", Torch(24 * GB, 48 * GB))

    found = devices.ask_torch()

    assert [(each.name, each.total_bytes, each.card) for each in found.devices] == [
        ("cuda:0", 24 * GB, "card-0"),
        ("cuda:1", 48 * GB, "card-1"),
    ]


def test_cards_that_are_shown_in_another_order_are_named_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = tuple(
        devices.Device(name=f"cuda:{index}", total_bytes=index, card=card) for index, card in enumerate("abc")
    )
    monkeypatch.setattr(devices, "_ask", lambda: devices.Found(devices=there))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.visible_gpus() == ()  # no file of NVIDIA's driver
    monkeypatch.setattr(devices, "_NVIDIA", __file__)
    assert devices.visible_gpus() == ("GPU-a", "GPU-b", "GPU-c")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b,GPU-c,GPU-a")

    assert [(each.name, each.card) for each in devices.find().devices] == [
        ("cuda:0", "b"),
        ("cuda:1", "c"),
        ("cuda:2", "a"),
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")  # as torch was asked
    assert devices.find().devices == there


def test_nothing_is_started_where_no_device_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "gpu_files_there", lambda: False)
    monkeypatch.setattr(subprocess, "run", None)

    assert devices.find() == devices.Found(why_none="this machine has no device file of a GPU")


@needs("torch")
def test_a_torch_that_finds_none_says_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "gpu_files_there", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    found = devices.find()

    assert found.devices == ()
    assert found.why_none.startswith("torch 2")
    assert found.why_none.endswith(" finds none")


def test_an_interpreter_that_cannot_be_started_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probes, "gpu_files_there", lambda: True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))

    found = devices.find()

    assert found.devices == ()
    assert found.why_none.startswith("torch could not be asked: [")


@pytest.mark.skipif(shutil.which("false") is None, reason="needs the command false")
def test_a_torch_that_cannot_be_imported_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "gpu_files_there", lambda: True)
    monkeypatch.setattr(sys, "executable", "false")

    assert devices.find() == devices.Found(why_none="torch could not be asked: exit status 1")
