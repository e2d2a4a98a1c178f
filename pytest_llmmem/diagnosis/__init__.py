"""Failures that are known: what happened, why, and the next thing to try.

The table is the rules of the modules below, in this order; the first that recognizes the facts is the answer. A new failure
is a new rule in the module that it belongs to, and a section of ``docs/diagnosis.md`` under its id.
"""

from typing import Final

from pytest_llmmem.core.record_parts import Diagnosis
from pytest_llmmem.diagnosis import after_load, crashes, cuda, files, installation, loads, memory, placement
from pytest_llmmem.diagnosis.facts import CheckpointFacts, Facts, LoadFacts, frames_of
from pytest_llmmem.diagnosis.rule import Rule

__all__ = ["TABLE", "CheckpointFacts", "Diagnosis", "Facts", "LoadFacts", "diagnose", "frames_of"]

TABLE: Final[tuple[Rule, ...]] = (
    *installation.RULES,
    *placement.RULES,
    *files.RULES,
    *memory.RULES,
    *cuda.RULES,
    *after_load.RULES,
    *loads.RULES,
    *crashes.RULES,
)


def diagnose(facts: Facts) -> Diagnosis | None:
    """The diagnosis of the first rule that recognizes the facts; ``None`` when none does."""
    return next((found for row in TABLE if (found := row.read(facts))), None)
