"""A card that is not there: torch's counters of a device, with numbers in place of memory.

It stands in for the driver alone. ``plug_in`` gives it to every worker of a pytest run, under torch's name.
"""

from pathlib import Path

GB = 10**9

_CONFTEST = """
import sys
import pytest
from card import Torch

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    if not isinstance(sys.modules.get("torch"), Torch):
        sys.modules["torch"] = Torch({totals})

@pytest.fixture(scope="session")
def card():
    return sys.modules["torch"].cuda
"""


def plug_in(pytester, *totals):
    """Cards of so many bytes in every worker; a test reaches them by the fixture ``card``."""
    pytester.makepyfile(card=Path(__file__).read_text())
    pytester.makeconftest(_CONFTEST.format(totals=", ".join(map(str, totals))))


class OutOfMemoryError(RuntimeError):
    __module__ = "torch"


class Torch:
    """The module, as far as a worker looks at it."""

    OutOfMemoryError = OutOfMemoryError

    def __init__(self, *totals):
        self.cuda = Cuda(totals)


class Cuda:
    """``torch.cuda``: nothing is initialized before the first allocation, as there."""

    def __init__(self, totals):
        self._devices = [Allocator(total) for total in totals]
        self._initialized = False

    def allocate(self, size, index=0):
        """What a tensor of so many bytes does to the device."""
        self._initialized = True
        self._devices[index].allocate(size)

    def free(self, size, index=0):
        """What the end of such a tensor does: its memory stays reserved."""
        self._devices[index].allocated -= size

    def empty_cache(self):
        """Give back what is reserved and held by no tensor."""
        for device in self._devices:
            device.reserved = device.allocated

    def is_initialized(self):
        return self._initialized

    def device_count(self):
        return len(self._devices)

    def memory_stats(self, device):
        return self._devices[device].stats()

    def reset_peak_memory_stats(self, device):
        self._devices[device].reset()


class Allocator:
    def __init__(self, total):
        self.total, self.allocated, self.reserved = total, 0, 0
        self.reset()

    def allocate(self, size):
        self.allocated += size
        self.reserved = max(self.reserved, self.allocated)
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def reset(self):
        self.peak_allocated, self.peak_reserved = self.allocated, self.reserved

    def stats(self):
        return {
            "allocated_bytes.all.current": self.allocated,
            "allocated_bytes.all.peak": self.peak_allocated,
            "reserved_bytes.all.current": self.reserved,
            "reserved_bytes.all.peak": self.peak_reserved,
        }
