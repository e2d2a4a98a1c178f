"""A card that is not there: torch's counters of a device, with numbers in place of memory.

It stands in for the driver alone. ``plug_in`` gives it to every worker of a pytest run, under torch's name.
"""

import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

GB = 10**9

_CONFTEST = """
import os
import sys
import pytest
from card import Torch
from pytest_llmmem.probes import devices

devices.find = lambda: devices.Found(devices=tuple(devices.Device(**each) for each in {found}))

# in what is forked: the parent has no torch, and so no doubt whether it bears a fork
os.register_at_fork(after_in_child=lambda: sys.modules.setdefault("torch", Torch({totals})))

@pytest.fixture(scope="session")
def card():
    return sys.modules["torch"].cuda
"""


def plug_in(pytester, *totals, driver=None):
    """Cards of so many bytes in every worker; a test reaches them by the fixture ``card``.

    ``driver`` is what it does with processes, as ``nvml.set_up`` takes it; without it there is none to be asked.
    """
    pytester.makepyfile(card=Path(__file__).read_text(encoding="utf-8"))
    pytester.makepyfile(pynvml=Path(__file__).with_name("nvml.py").read_text())
    if driver is not None:
        script = f"import pynvml; pynvml.set_up({totals!r}, **{driver!r})"
        subprocess.run([sys.executable, "-c", script], cwd=pytester.path, check=True)
    found = [
        {"name": f"cuda:{index}", "total_bytes": total, "card": f"card-{index}"} for index, total in enumerate(totals)
    ]
    pytester.makeconftest(_CONFTEST.format(totals=", ".join(map(str, totals)), found=found))


class OutOfMemoryError(RuntimeError):
    __module__ = "torch"


class Torch:
    """The module, as far as a worker looks at it."""

    __version__ = "2.13.0"
    OutOfMemoryError = OutOfMemoryError

    def __init__(self, *totals):
        self.cuda = Cuda(totals)


class History:
    """``torch.cuda.memory``: a history is there from the moment that it is asked for."""

    def __init__(self):
        self._entries = None

    def _record_memory_history(self, enabled="all", **_):
        self._entries = [] if enabled else None

    def add(self, entry):
        if self._entries is not None:
            self._entries.append(entry)

    def _dump_snapshot(self, filename):
        with open(filename, "wb") as file:
            pickle.dump(self._entries, file)


class Cuda:
    """``torch.cuda``: nothing is initialized before the first allocation, as there."""

    def __init__(self, totals):
        self.memory = History()
        self._devices = [Allocator(total) for total in totals]
        self._initialized = False
        self._pinned = 0

    def allocate(self, size, index=0):
        """What a tensor of so many bytes does to the device."""
        self._initialized = True
        self.memory.add(size)
        self._devices[index].allocate(size)
        self._tell_driver(index)

    def _tell_driver(self, index):
        """The driver knows what is reserved, and the context beside it."""
        import pynvml

        if pynvml.read()["cards"]:
            pynvml.hold(index, self._devices[index].reserved)

    def free(self, size, index=0):
        """What the end of such a tensor does: its memory stays reserved."""
        self._devices[index].allocated -= size

    def empty_cache(self):
        """Give back what is reserved and held by no tensor."""
        for index, device in enumerate(self._devices):
            device.reserved = device.allocated
            self._tell_driver(index)

    def is_initialized(self):
        return self._initialized

    def device_count(self):
        return len(self._devices)

    def fragment(self):
        """Leave what is reserved in pieces that are too small for anything."""
        for device in self._devices:
            device.is_in_pieces = True

    def is_available(self):
        return True

    def pin(self, size):
        """What a page-locked tensor of so many bytes does; its end leaves it with the allocator."""
        self._initialized = True
        self._pinned = max(self._pinned, size)

    def host_memory_stats(self):
        return {"allocated_bytes.peak": self._pinned}

    def reset_peak_host_memory_stats(self):
        pass

    def get_device_properties(self, device):
        return SimpleNamespace(total_memory=self._devices[device].total, uuid=f"card-{device}")

    def set_per_process_memory_fraction(self, fraction, device):
        self._devices[device].allowed = int(fraction * self._devices[device].total)

    def memory_stats(self, device):
        return self._devices[device].stats()

    def reset_peak_memory_stats(self, device):
        self._devices[device].reset()


def gib(size):
    return f"{size / 2**30:.2f} GiB"


class Allocator:
    def __init__(self, total):
        self.total, self.allowed, self.allocated, self.reserved = total, total, 0, 0
        self.is_in_pieces = False
        self.reset()

    def allocate(self, size):
        if self.allocated + size > self.allowed or self.is_in_pieces:
            raise OutOfMemoryError(self._refusal(size))
        self.allocated += size
        self.reserved = max(self.reserved, self.allocated)
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def _refusal(self, size):
        """As torch words it, in c10/cuda/CUDACachingAllocator.cpp."""
        allowed = f"{gib(self.allowed)} allowed; " if self.allowed < self.total else ""
        return (
            f"CUDA out of memory. Tried to allocate {gib(size)}. GPU 0 has a total capacity of {gib(self.total)} of which "
            f"{gib(self.total - self.reserved)} is free. Including non-PyTorch memory, this process has "
            f"{gib(self.reserved)} memory in use. {allowed}Of the allocated memory "
            f"{gib(self.allocated)} is allocated by PyTorch, and {gib(self.reserved - self.allocated)} is reserved by "
            "PyTorch but unallocated. If reserved but unallocated memory is large try setting "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
        )

    def reset(self):
        self.peak_allocated, self.peak_reserved = self.allocated, self.reserved

    def stats(self):
        return {
            "allocated_bytes.all.current": self.allocated,
            "allocated_bytes.all.peak": self.peak_allocated,
            "reserved_bytes.all.current": self.reserved,
            "reserved_bytes.all.peak": self.peak_reserved,
            "inactive_split_bytes.all.peak": self.reserved - self.allocated if self.is_in_pieces else 0,
        }
