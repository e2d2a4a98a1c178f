"""Diagnosis of a failed test, made from its facts."""

import dataclasses
import shutil
from collections.abc import Sequence
from typing import Final

import pytest

from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.record_parts import Diagnosis
from pytest_llmmem.diagnosis import CheckpointFacts, Facts, LoadFacts, diagnose
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.loading.arguments import as_bytes
from pytest_llmmem.models.loading.ineffective_arguments import is_plan
from pytest_llmmem.plugin.collect.loads import Load, load_of
from pytest_llmmem.plugin.run.inbox import Inbox
from pytest_llmmem.probes.host import HostMemory

_PLANNING: Final = frozenset({"auto", "offload"})
"""The strategies that plan by themselves, with what the container has left."""


def explain(
    reports: Sequence[pytest.TestReport],
    measured: Measured,
    ending: Ending,
    inbox: Inbox,
    checkpoint: Checkpoint | None,
) -> Diagnosis | None:
    """Say under a failure what is known about failures like it; ``None`` when nothing is.

    Of a test that passed it is what its load did and should not have done.
    """
    failed = [report for report in reports if report.failed]
    if not failed and not inbox.loaded:
        return None
    facts = _facts(measured, ending, inbox, checkpoint)
    diagnosis = _own_diagnosis(inbox.item.config, facts) or diagnose(facts)
    if diagnosis is None:
        return None
    for report in failed:
        report.sections.append(("llmmem: what to do", "\n".join(diagnosis.lines)))
    return diagnosis


def _own_diagnosis(config: pytest.Config, facts: Facts) -> Diagnosis | None:
    """The first of the team's own rules that recognizes the failure; one that fails itself is told in its place."""
    for recognize in (each for given in config.hook.pytest_llmmem_diagnoses() for each in given):
        try:
            found: Diagnosis | None = recognize(facts)
        except Exception as error:  # noqa: BLE001 -- a test has failed, and its report is to appear
            raised = f"{recognize.__name__} of pytest_llmmem_diagnoses raised {type(error).__name__}: {error}"
            return Diagnosis(id="own-rule-failed", happened=raised, why="A rule must return None for other facts.")
        if found is not None:
            return found
    return None


def _facts(measured: Measured, ending: Ending, inbox: Inbox, checkpoint: Checkpoint | None) -> Facts:
    host, raised = inbox.host, inbox.raised
    contained = host.limited_by != "host"
    shm = _shared_memory()
    return Facts(
        ending=ending,
        error_type=raised.type if raised else None,
        error_text=raised.text if raised else "",
        stack=(raised and raised.stack) or measured.stack.frames,
        place=measured.place,
        checkpoint=_facts_of(checkpoint) if checkpoint else None,
        load=_load_facts(measured, inbox, load_of(inbox.item)),
        alive=measured.alive,
        children=measured.children,
        host_available_bytes=host.machine_available_bytes,
        container_available_bytes=host.available_bytes if contained else None,
        shm_total_bytes=shm[0] if shm else None,
        shm_free_bytes=shm[1] if shm else None,
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


def _shared_memory() -> tuple[int, int] | None:
    """Total and free bytes of ``/dev/shm``; ``None`` where there is none."""
    try:
        usage = shutil.disk_usage("/dev/shm")  # noqa: S108 -- asked for its size, and never written to
    except OSError:
        return None
    return usage.total, usage.free


def _load_facts(measured: Measured, inbox: Inbox, asked: Load) -> LoadFacts | None:
    loaded, at_end = inbox.loaded, inbox.at_end
    peaks = [phase.peak_bytes for phase in measured.phases if phase.name == "load"]
    facts = LoadFacts(
        asked_dtype=asked.asked_dtype,
        peak_bytes=max(peaks, default=None),
        asked_bits=asked.bits,
        planned_host_bytes=_planned_host_bytes(asked, inbox.host),
    )
    if loaded is None:
        return facts if peaks else None
    return dataclasses.replace(
        facts,
        dtype=loaded.dtype,
        nbytes=loaded.nbytes,
        kept_bytes=loaded.kept_bytes,
        bits_per_parameter=loaded.bits_per_parameter,
        quantized_fraction=loaded.quantized_fraction,
        planned_disk_bytes=loaded.on_disk_bytes if is_plan(asked.options.get("device_map")) else None,
        lost_ties=at_end.tie_faults.lost if at_end else (),
        stored_twice=at_end.tie_faults.stored_twice if at_end else (),
    )


def _planned_host_bytes(asked: Load, host: HostMemory) -> int | None:
    """Host memory that a plan may use because the test says so, or because nobody does; ``None`` without such a plan."""
    caps, planned_here = asked.options.get("max_memory"), asked.strategy in _PLANNING
    if not (planned_here or is_plan(asked.options.get("device_map"))):
        return None
    if caps is None:
        return None if planned_here else host.machine_available_bytes
    return as_bytes(caps["cpu"]) if "cpu" in caps else None
