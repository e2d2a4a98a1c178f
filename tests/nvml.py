"""NVIDIA's library of answers about cards, under its Python name, for cards that are a file of numbers.

``write`` changes them. As NVML does, it lists a process as long as it lives, and memory of dead ones is free.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace

NVML_DEVICE_MIG_ENABLE = 1
_CARDS = Path(__file__).with_name("nvml.json")
CONTEXT = 400_000_000
"""What each process takes beside its own allocations."""


class NVMLError(Exception):
    """Any of its errors."""


def read():
    return json.loads(_CARDS.read_text()) if _CARDS.exists() else {"cards": {}, "lists": True, "sizes": True}


def write(cards):
    new = _CARDS.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(cards))
    os.replace(new, _CARDS)


def set_up(totals, *, lists=True, sizes=True):
    """Cards of so many bytes, whose driver lists processes, with sizes, or does not."""
    cards = {f"card-{index}": {"total": total, "processes": {}} for index, total in enumerate(totals)}
    write({"cards": cards, "lists": lists, "sizes": sizes})


def hold(index, size):
    """What the calling process holds now, without its context."""
    state = read()
    state["cards"][f"card-{index}"]["processes"][str(os.getpid())] = size + CONTEXT
    write(state)


def _living(card):
    return {pid: size for pid, size in card["processes"].items() if Path(f"/proc/{pid}").exists()}


def nvmlInit():
    if not read()["cards"]:
        raise NVMLError("Driver Not Loaded")


def nvmlDeviceGetCount():
    return len(read()["cards"])


def nvmlDeviceGetHandleByIndex(index):
    return f"card-{index}"


def nvmlDeviceGetUUID(handle):
    return f"GPU-{handle}"


def nvmlDeviceGetMigMode(handle):
    raise NVMLError("Not Supported")


def nvmlDeviceGetMemoryInfo(handle):
    card = read()["cards"][handle]
    used = sum(_living(card).values())
    return SimpleNamespace(total=card["total"], used=used, free=card["total"] - used)


def nvmlDeviceGetComputeRunningProcesses(handle):
    state = read()
    if not state["lists"]:
        return []
    return [
        SimpleNamespace(pid=int(pid), usedGpuMemory=size if state["sizes"] else None)
        for pid, size in _living(state["cards"][handle]).items()
    ]
