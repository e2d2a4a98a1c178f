"""From what was seen of a failed test to a diagnosis."""

import dataclasses
from collections.abc import Sequence

import pytest

from pytest_llmmem.core.diagnosis import CheckpointFacts, LoadFacts, Symptom, diagnose
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.outcomes import Ending
from pytest_llmmem.core.records import DiagnosisRecord
from pytest_llmmem.models.checkpoint import Checkpoint
from pytest_llmmem.plugin.hearing import Hearing
from pytest_llmmem.plugin.loads import Load, load_of
from pytest_llmmem.plugin.said import Loaded


def explain(
    reports: Sequence[pytest.TestReport],
    measured: Measured,
    ending: Ending,
    hearing: Hearing,
    checkpoint: Checkpoint | None,
) -> DiagnosisRecord | None:
    """Say under a failure what is known about failures like it; ``None`` when nothing is.

    Of a test that passed it is what its load did and should not have done.
    """
    failed = [report for report in reports if report.failed]
    diagnosis = diagnose(_symptom(measured, ending, hearing, checkpoint)) if failed or hearing.loaded else None
    if diagnosis is None:
        return None
    for report in failed:
        report.sections.append(("llmmem: what to do", "\n".join(diagnosis.lines())))
    return DiagnosisRecord(id=diagnosis.id, lines=diagnosis.lines())


def _symptom(measured: Measured, ending: Ending, hearing: Hearing, checkpoint: Checkpoint | None) -> Symptom:
    host, raised = hearing.host, hearing.raised
    contained = host.limited_by != "host"
    return Symptom(
        ending=ending,
        error_type=raised.type if raised else None,
        error_text=raised.text if raised else "",
        stack=(raised and raised.stack) or measured.stack,
        place=measured.place,
        checkpoint=_facts_of(checkpoint) if checkpoint else None,
        load=_load_facts(measured, hearing.loaded, load_of(hearing.item)),
        host_available_bytes=None if contained else host.available_bytes,
        container_available_bytes=host.available_bytes if contained else None,
    )


def _facts_of(checkpoint: Checkpoint) -> CheckpointFacts:
    shorter = (
        shard.path.name
        for shard in checkpoint.shards
        if not shard.path.exists() or shard.path.stat().st_size < shard.file_bytes
    )
    return CheckpointFacts(
        weights_bytes=checkpoint.weights_bytes,
        dtype=checkpoint.dtype,
        duplicates=checkpoint.duplicates,
        truncated=tuple(dict.fromkeys((*checkpoint.truncated, *shorter))),
    )


def _load_facts(measured: Measured, loaded: Loaded | None, asked: Load) -> LoadFacts | None:
    peaks = [phase.peak.peak_bytes for phase in measured.phases if phase.name == "load"]
    facts = LoadFacts(asked_dtype=asked.asked_dtype, peak_bytes=max(peaks, default=None), asked_bits=asked.asked_bits)
    if loaded is None:
        return facts if peaks else None
    return dataclasses.replace(
        facts,
        dtype=loaded.dtype,
        nbytes=loaded.nbytes,
        bits_per_parameter=loaded.bits_per_parameter,
        quantized_fraction=loaded.quantized_fraction,
    )
