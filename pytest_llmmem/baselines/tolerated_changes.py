"""One number before and after, and whether its change counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pytest_llmmem.baselines.tolerance import Tolerance
from pytest_llmmem.baselines.values import Baseline
from pytest_llmmem.core.sizes import format_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One measure before and after, in bytes."""

    measure: str
    """One of ``measures.MEASURES``; of VRAM with the device, ``"vram cuda:0"``."""
    before_bytes: int
    after_bytes: int
    error_bytes: int
    """Sum of both errors."""
    tolerance: Tolerance

    @property
    def difference_bytes(self) -> int:
        return self.after_bytes - self.before_bytes

    @property
    def share(self) -> str:
        """``"+16%"``; empty where nothing was before."""
        if not self.before_bytes:
            return ""
        percent = round(100 * self.difference_bytes / self.before_bytes)
        return f"{percent:+}%" if percent else "0%"

    @property
    def verdict(self) -> Literal["grew", "shrank", "held", "uncertain"]:
        """A difference within the error of measuring is no change; if the error exceeds the tolerance, nothing is known."""
        allowed = self.tolerance.bytes(self.before_bytes)
        if abs(self.difference_bytes) > allowed + self.error_bytes:
            return "grew" if self.difference_bytes > 0 else "shrank"
        return "held" if self.error_bytes <= allowed else "uncertain"


def is_changed(before: Baseline | None, after: Baseline, tolerance: Tolerance) -> bool:
    """Whether an update should write it: a number that held stays as it is, so that a review sees what changed.

    So does one that is too uncertain to tell, unless it is now known better.
    """
    if before is None or before.peak_reserved_bytes.keys() != after.peak_reserved_bytes.keys():
        return True
    verdicts = {change.verdict for change in changes_between(before, after, tolerance)}
    return bool(verdicts & {"grew", "shrank"}) or ("uncertain" in verdicts and after.error_bytes < before.error_bytes)


def changes_between(before: Baseline, after: Baseline, tolerance: Tolerance) -> tuple[Change, ...]:
    """Every measure that both have; the allocator's and the files' have no error that is known."""
    error = before.error_bytes + after.error_bytes
    resident_error = before.resident_error_bytes + after.resident_error_bytes
    measures: Mapping[str, tuple[int, int, int]] = {
        "unreclaimable": (before.peak_bytes, after.peak_bytes, error),
        "resident": (before.peak_resident_bytes, after.peak_resident_bytes, resident_error),
        "file": (before.peak_file_bytes, after.peak_file_bytes, 0),
        **{
            f"vram {device}": (size, after.peak_reserved_bytes[device], 0)
            for device, size in before.peak_reserved_bytes.items()
            if device in after.peak_reserved_bytes
        },
    }
    return tuple(
        Change(measure=measure, before_bytes=old, after_bytes=new, error_bytes=error, tolerance=tolerance)
        for measure, (old, new, error) in measures.items()
    )


def signed(size_bytes: int, unit: str | None) -> str:
    """``"+430 MB"``."""
    return f"{'+' if size_bytes >= 0 else ''}{format_size(size_bytes, unit)}"
