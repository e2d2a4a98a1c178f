"""Accelerators that torch can use here, listed once by a separate process.

The process that workers are forked from must open no driver: a GPU context survives no fork. Run as a program, this module
imports torch, asks, and prints the answer as JSON.
"""

import dataclasses
import functools
import glob
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Final

from pytest_llmmem import probes
from pytest_llmmem.probes.torch_memory import KINDS

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_UUID: Final = "GPU-"
"""Prefix of a card's id in the variable and in the driver's answers."""
_NVIDIA: Final = "/dev/nvidia[0-9]*"
_TIMEOUT_S: Final = 120
"""An import of torch from a cold disk, and a driver that wakes up, take tens of seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator."""

    name: str
    """Torch's name in this session: ``"cuda:0"``."""
    total_bytes: int
    card: str
    """The card's own id, the same for every process whatever ``CUDA_VISIBLE_DEVICES`` says; its name where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The devices that were found."""

    devices: tuple[Device, ...] = ()
    why_none: str = ""
    """``"torch 2.13.0+cpu finds none"``."""


def visible_gpus() -> tuple[str, ...]:
    """NVIDIA's cards for ``CUDA_VISIBLE_DEVICES``, in the order in which CUDA numbers them here."""
    chosen = os.environ.get(VISIBLE)
    if chosen is not None:
        return tuple(name.strip() for name in chosen.split(",") if name.strip())
    if not glob.glob(_NVIDIA):  # what torch calls cuda may be AMD's, which reads the variable in another way
        return ()
    of_cuda = [device for device in find().devices if device.name.startswith("cuda")]
    return tuple(_UUID + device.card for device in of_cuda if device.card != device.name)


def find() -> Found:
    """The accelerators of this session; nothing is started where the machine has no device file of one."""
    found = _ask()
    by_card = {device.card: device for device in found.devices}
    order = [name.removeprefix(_UUID) for name in os.environ.get(VISIBLE, "").split(",")]
    if set(order) != set(by_card):
        return found
    # put in another order since torch was asked
    return Found(devices=tuple(replace(by_card[card], name=f"cuda:{index}") for index, card in enumerate(order)))


@functools.cache
def _ask() -> Found:
    if not probes.gpu_files_there():
        return Found(why_none="this machine has no device file of a GPU")
    command = [sys.executable, "-m", "pytest_llmmem.probes.devices"]
    try:
        asked = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=_TIMEOUT_S, check=True
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
        return Found(why_none=f"torch could not be asked: {said}")
    except OSError as error:
        return Found(why_none=f"torch could not be asked: {error}")
    except subprocess.TimeoutExpired:
        return Found(why_none=f"torch did not answer within {_TIMEOUT_S} s")
    answer = json.loads(asked.stdout.splitlines()[-1])
    return Found(devices=tuple(Device(**device) for device in answer["devices"]), why_none=answer["why_none"])


def ask_torch() -> Found:
    """Import torch and ask it, which may open the driver: not for a process that others are forked from."""
    try:
        import torch
    except ImportError:
        return Found(why_none="torch is not installed")
    for kind in KINDS:
        backend = getattr(torch, kind, None)
        if backend is not None and backend.is_available():
            properties = [backend.get_device_properties(index) for index in range(backend.device_count())]
            return Found(
                devices=tuple(
                    Device(
                        name=f"{kind}:{index}",
                        total_bytes=each.total_memory,
                        card=str(getattr(each, "uuid", f"{kind}:{index}")),
                    )
                    for index, each in enumerate(properties)
                )
            )
    return Found(why_none=f"torch {torch.__version__} finds none")


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(ask_torch())))
