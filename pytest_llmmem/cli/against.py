"""Predicted peaks beside measured ones: ``llmmem estimate MODEL --against REPORT.json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pytest_llmmem.core.sizes import format_size

if TYPE_CHECKING:
    from pytest_llmmem.core.records import SessionRecord
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
    from pytest_llmmem.models.estimates.estimate import Estimate

Count = Literal["unreclaimable", "resident"]

_SHARE: Final = 0.05
_SLACK_BYTES: Final = 30_000_000
"""A measured peak is as predicted when it is above it by no more than the larger of the two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A measured peak of one load, beside the predicted one."""

    nodeid: str
    load: str
    dtype: str
    """The dtype of the prediction."""
    count: Count
    predicted_bytes: int
    measured_bytes: int

    @property
    def held(self) -> bool:
        """Whether the load needed no more than was predicted, or hardly more."""
        return self.measured_bytes <= self.predicted_bytes + _slack_bytes(self.predicted_bytes)

    @property
    def ratio(self) -> float:
        """Measured to predicted."""
        return self.measured_bytes / self.predicted_bytes


def compare(checkpoint: "Checkpoint", session: "SessionRecord", *, dtype: str | None) -> tuple[Beside, ...]:
    """Every load of this checkpoint that a session has measured, beside what its version of transformers should need."""
    from pytest_llmmem.models.estimates.loader_versions import LOADS

    rows = []
    for test in session.tests:
        model = test.model
        if model is None or model.weights_bytes != checkpoint.weights_bytes or model.load not in LOADS:
            continue
        predicted = checkpoint.estimate(
            load=model.load, dtype=dtype, transformers=_version(session.environment_of(test))
        )
        for phase in test.phases:
            if phase.name != "load":
                continue
            measured: dict[Count, int | None] = {
                "unreclaimable": phase.peak_bytes,
                "resident": phase.peak_resident_bytes,
            }
            rows += [
                Beside(
                    nodeid=test.nodeid,
                    load=predicted.load,
                    dtype=predicted.dtype,
                    count=count,
                    predicted_bytes=expected,
                    measured_bytes=actual,
                )
                for count, actual in measured.items()
                if actual is not None and (expected := _peak(predicted, count)) is not None
            ]
    return tuple(rows)


def explain(beside: Beside, checkpoint: "Checkpoint", session: "SessionRecord") -> str:
    """One line about a load that needed more than predicted, with the most likely cause."""
    more = format_size(beside.measured_bytes - beside.predicted_bytes)
    line = f"{beside.nodeid}: {beside.load} needed {more} {beside.count} more than predicted"
    for dtype in ("float32", "float16", "bfloat16"):
        other = checkpoint.estimate(dtype=dtype, transformers=_version(session.environment))
        expected = _peak(other, beside.count)
        if expected is not None and abs(beside.measured_bytes - expected) <= _slack_bytes(expected):
            return f"{line}, as much as a load into {dtype}: is the dtype really {beside.dtype}?"
    if session.environment.get("malloc") != "steady":
        return f"{line}, with glibc's default mmap threshold: measure it with --llm-malloc=steady"
    return f"{line}: look for a copy, or for a library that is imported while it loads"


def _peak(estimate: "Estimate", count: Count) -> int | None:
    return estimate.peak_bytes if count == "unreclaimable" else estimate.peak_resident_bytes


def _slack_bytes(predicted_bytes: int) -> int:
    return max(_SLACK_BYTES, round(_SHARE * predicted_bytes))


def _version(environment: Mapping[str, str | int | float | None]) -> str | None:
    version = environment.get("transformers")
    return None if version is None else str(version)
