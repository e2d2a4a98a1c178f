"""GPU memory of a worker and its children, by the driver: read while it runs, and waited for after its end."""

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from pytest_llmmem import probes
from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.record_parts import VramRecord
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.core.vram import VramWindow
from pytest_llmmem.probes.driver import Driver
from pytest_llmmem.supervision.accounting import Accounting

_SMALL_BYTES: Final = 64 * 2**20
_BACK_S: Final = 10.0
_LOOK_S: Final = 0.05
_ANSWER_S: Final = 2.0
_AT_ONCE_S: Final = 0.005
"""An answer takes about one millisecond."""
_UNSEEN: Final = (
    "torch's account of GPU memory was read when the last phase or block began: "
    "what it had of it between then and the worker's death is unknown"
)


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs, as one worker uses them."""

    driver: Driver
    pid: int
    """The worker's."""

    @property
    def are_asked(self) -> bool:
        """Whether a worker must wait at its boundaries: a driver's answer is about the moment in which it is asked."""
        return not self.driver.why_none

    def sample(self, accounting: Accounting, *, waits: bool = False) -> None:
        """Tell the accounting what is held now, and was at most since the last sample.

        Without ``waits`` an answer that is not there at once is taken at a later sample: the guard loop must not stall.
        """
        if not self.are_asked:
            return
        pids = (self.pid, *probes.descendants(self.pid))
        in_use = any(probes.gpu_files_open(pid) for pid in pids)
        accounting.add_driver_readings(
            self.driver.ask(pids, patience_s=_ANSWER_S if waits else _AT_ONCE_S), in_use=in_use
        )

    def silence_notes(self, budgets: Iterable[Budget]) -> tuple[str, ...]:
        """A note for a budget that needs the driver, when the driver has stopped answering."""
        if self.driver.why_none and any(budget.count == "device" for budget in budgets):
            return (f"max_vram was not judged to the end: the driver could not be asked: {self.driver.why_none}",)
        return ()

    def wait_back(self, window: VramWindow) -> tuple[str, ...]:
        """Wait until the driver has back what the dead worker held in its window; returns a note if it has not."""
        if not any(peak.peak_device_bytes for peak in window.peaks):
            return ()
        deadline = time.monotonic() + _BACK_S
        while (left_bytes := window.held_bytes(self.driver.ask((self.pid,), patience_s=_ANSWER_S))) > _SMALL_BYTES:
            if time.monotonic() > deadline:
                left = format_size(left_bytes)
                return (f"{left} of GPU memory were not back {_BACK_S:.0f} s after the worker had ended",)
            time.sleep(_LOOK_S)
        return ()


def unseen_vram_notes(peaks: Collection[VramRecord], budgets: Iterable[Budget]) -> tuple[str, ...]:
    """The note about GPU memory that nobody read before a worker died."""
    return (_UNSEEN,) if peaks or any(budget.kind == "max_vram" for budget in budgets) else ()
