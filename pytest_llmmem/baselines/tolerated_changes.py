"""One number before and after, and whether its change counts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pytest_llmmem.baselines.tolerance import Tolerance
from pytest_llmmem.baselines.values import Baseline, StepBaseline
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.core.steps import KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One measure before and after, in bytes."""

    measure: str
    """The measure in words: ``"resident"``, ``"vram cuda:0"``, ``"activations of train_step"``."""
    before_bytes: int
    after_bytes: int
    error_bytes: int
    """Sum of both errors."""
    tolerance: Tolerance
    group: str = ""
    """One of ``measures.MEASURES``."""
    place: str = ""
    """The modules in which most of a change of activations is; empty where that is unknown."""

    @property
    def difference_bytes(self) -> int:
        return self.after_bytes - self.before_bytes

    @property
    def is_of_kind(self) -> bool:
        """Whether it is one kind of tensors of a step; the measure ``"tensors of train_step"`` is all of them."""
        return self.group == "tensors" and not self.measure.startswith("tensors ")

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
    if (
        before is None
        or before.peak_reserved_bytes.keys() != after.peak_reserved_bytes.keys()
        or before.steps.keys() != after.steps.keys()
    ):
        return True
    verdicts = {change.verdict for change in changes_between(before, after, tolerance)}
    return bool(verdicts & {"grew", "shrank"}) or ("uncertain" in verdicts and after.error_bytes < before.error_bytes)


def changes_between(before: Baseline, after: Baseline, tolerance: Tolerance) -> tuple[Change, ...]:
    """Every measure that both have; the allocator's, the files' and the tensors' have no error that is known."""
    return tuple(
        Change(
            measure=measure, group=group, before_bytes=old, after_bytes=new, error_bytes=error, tolerance=tolerance, place=place
        )
        for group, measure, old, new, error, place in _numbers(before, after)
    )  # fmt: skip


def _numbers(before: Baseline, after: Baseline) -> Iterator[tuple[str, str, int, int, int, str]]:
    """The group and name of each measure, both numbers, their error, and the place of the change."""
    error = before.error_bytes + after.error_bytes
    resident_error = before.resident_error_bytes + after.resident_error_bytes
    yield "unreclaimable", "unreclaimable", before.peak_bytes, after.peak_bytes, error, ""
    yield "resident", "resident", before.peak_resident_bytes, after.peak_resident_bytes, resident_error, ""
    yield "file", "file", before.peak_file_bytes, after.peak_file_bytes, 0, ""
    for device, size in before.peak_reserved_bytes.items():
        if device in after.peak_reserved_bytes:
            yield "vram", f"vram {device}", size, after.peak_reserved_bytes[device], 0, ""
    for name, old in before.steps.items():
        if (new := after.steps.get(name)) is not None:
            for kind, size, now, place in _kinds(old, new):
                yield "tensors", f"{kind} of {name}", size, now, 0, place


def _kinds(before: StepBaseline, after: StepBaseline) -> Iterator[tuple[str, int, int, str]]:
    yield "tensors", before.peak_bytes, after.peak_bytes, ""
    old, new = before.largest_by_kind, after.largest_by_kind
    for kind in KINDS:
        if kind in old or kind in new:
            place = _most_changed(before, after) if kind == "activations" else ""
            yield kind, old.get(kind, 0), new.get(kind, 0), place


def _most_changed(before: StepBaseline, after: StepBaseline) -> str:
    """The modules that account for most of a change of activations; empty when none has half of it."""
    old, new = before.kept_by_pattern, after.kept_by_pattern
    apart = {module: new.get(module, 0) - old.get(module, 0) for module in (*new, *old)}
    module = max(apart, key=lambda each: abs(apart[each]), default="")
    whole = after.largest_by_kind.get("activations", 0) - before.largest_by_kind.get("activations", 0)
    return module if 2 * abs(apart.get(module, 0)) > abs(whole) else ""


def signed(size_bytes: int, unit: str | None) -> str:
    """``"+430 MB"``."""
    return f"{'+' if size_bytes >= 0 else ''}{format_size(size_bytes, unit)}"
