"""The smallest machine, computed from one measured run: dies below, slow below, and the request of a container."""

from dataclasses import dataclass
from typing import Final, Literal

from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.fit.measuring import Limited, Measured

_MARGIN: Final = 1.02
"""Factor on the program's growth: the kernel also charges page tables and other memory beside its pages."""
_WORKING_SET_BYTES: Final = 16_000_000
"""Pages of files without which nothing runs at all."""
_RESERVE: Final = 0.05
_RESERVE_BYTES: Final = 512 * 2**20
"""Left for everything else on a machine, as a session's guard leaves it: the larger of the two."""
_FEW_REFAULTED: Final = 0.1
"""Highest share of a limit that is read from the disk again in a run that does not thrash."""
_AS_FAST: Final = 1.5

_GIB: Final = 2**30
MACHINES: Final = tuple(
    size * _GIB for size in (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
)
"""Usual sizes of machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Sizes of a container that has the whole process in it, in bytes."""

    dies_below_bytes: int
    slow_below_bytes: int
    """With less, pages of the weights are dropped and read from the disk again."""
    slow_once_loaded_below_bytes: int
    """The same once the load is over: less than that of a load that casts, whose shards are mapped until it ends."""
    growth_dies_bytes: int
    """``dies_below_bytes`` without the base."""
    growth_slow_bytes: int

    def of_machine(self, size_bytes: int) -> Literal["dies", "slow", "fits"]:
        """Result on a machine of that size, with the reserve left free."""
        left_bytes = size_bytes - max(_RESERVE_BYTES, round(_RESERVE * size_bytes))
        return (
            "dies" if left_bytes < self.dies_below_bytes else "slow" if left_bytes < self.slow_below_bytes else "fits"
        )

    @property
    def request_bytes(self) -> int:
        """Memory request of a container: the program runs fast in it."""
        return self.slow_below_bytes

    @property
    def limit_bytes(self) -> int:
        """Memory limit of a container: above the request, to leave room for longer inputs."""
        return round((1 + _RESERVE) * self.slow_below_bytes)


def verdict_of(measured: Measured) -> Verdict:
    """Compute the sizes from one run."""
    dies_bytes = round(_MARGIN * measured.peak_bytes) + _WORKING_SET_BYTES
    slow_bytes = max(dies_bytes, round(_MARGIN * measured.peak_resident_bytes) + _WORKING_SET_BYTES)
    once_bytes = max(measured.peak_bytes, round(_MARGIN * measured.loaded_resident_bytes) + _WORKING_SET_BYTES)
    return Verdict(
        dies_below_bytes=measured.base_unreclaimable_bytes + dies_bytes,
        slow_below_bytes=measured.base_resident_bytes + slow_bytes,
        slow_once_loaded_below_bytes=measured.base_resident_bytes + once_bytes,
        growth_dies_bytes=dies_bytes,
        growth_slow_bytes=slow_bytes,
    )


def complaints(measured: Measured, smallest: Limited, fast: Limited) -> list[str]:
    """Contradictions between the verdict and the two verifying runs; none when both confirm it."""
    found = []
    if not smallest.lived:
        found.append("it died in the limit that it was to live in")
    if not fast.finished:
        found.append("it did not finish in the limit that it was to run fast in")
    elif fast.refaulted_bytes is not None:
        # where the kernel counts, the clock has no vote: it also shows what else the machine does
        if fast.refaulted_bytes > _FEW_REFAULTED * fast.limit_bytes:
            found.append(f"{format_size(fast.refaulted_bytes)} were read from the disk again where it was to run fast")
    elif fast.step_s is not None and fast.step_s > _AS_FAST * measured.step_s:
        found.append(f"a step took {fast.step_s:.2f} s where it was to run fast, and {measured.step_s:.2f} s without")
    return found
