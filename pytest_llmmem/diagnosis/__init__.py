"""Failures that are known: what happened, why, and the next thing to try.

The table is the rows of the modules below, in this order; the first that recognises a symptom is the answer. A new failure
is a new row in the module that it belongs to, and a section of ``docs/diagnosis.md`` under the row's id.
"""

from typing import Final

from pytest_llmmem.diagnosis import crashes, cuda, files, installation, loads, memory, placement
from pytest_llmmem.diagnosis.facts import CheckpointFacts, LoadFacts, Symptom, frames_of
from pytest_llmmem.diagnosis.rules import Diagnosis, Row

__all__ = ["TABLE", "CheckpointFacts", "Diagnosis", "LoadFacts", "Symptom", "diagnose", "frames_of"]

TABLE: Final[tuple[Row, ...]] = (
    *installation.ROWS,
    *placement.ROWS,
    *files.ROWS,
    *memory.ROWS,
    *cuda.ROWS,
    *loads.ROWS,
    *crashes.ROWS,
)


def diagnose(symptom: Symptom) -> Diagnosis | None:
    """The first row of the table that recognises the symptom; ``None`` when none does."""
    return next((found for row in TABLE if (found := row.read(symptom))), None)
