"""Memory of several steps: the highest moment of all, and the most of each kind."""

from dataclasses import replace
from typing import get_args

import pytest

from pytest_llmmem.core.steps import KINDS, KeptActivations, Kind, StepMemory, StepPhase, module_pattern
from tests.reports.records import steps


def phase(step: int, name: str, peak: int, process: int | None = None) -> StepPhase:
    return StepPhase(
        step=step,
        phase=name,
        peak_bytes=peak,
        by_kind={"activations": peak},
        op="aten.mm",
        module="model.lm_head",
        end_by_kind={},
        process_peak_bytes=process,
    )


def memory(*phases: StepPhase, **largest: int) -> StepMemory:
    return StepMemory(device="cpu", phases=phases, largest_by_kind=largest)


def test_the_peak_is_the_highest_phase_of_all_steps() -> None:
    spent = memory(phase(1, "forward", 30, 70), phase(1, "backward", 50), phase(2, "forward", 40, 90))

    assert spent.peak == spent.phases[1]
    assert (spent.peak_bytes, spent.steps, spent.process_peak_bytes) == (50, 2, 90)
    assert [spent.peak_of_step(step) for step in (1, 2, 3)] == [50, 40, 0]


def test_what_an_allocator_would_reserve_is_known_of_a_prediction_alone() -> None:
    predicted = memory(
        replace(phase(1, "forward", 30), reserved_bytes=64), replace(phase(1, "backward", 50), reserved_bytes=90)
    )

    assert (predicted.reserved_bytes, memory(phase(1, "forward", 30)).reserved_bytes) == (90, None)


def test_a_measurement_without_a_step_has_no_peak() -> None:
    spent = memory()

    assert (spent.peak, spent.peak_bytes, spent.steps, spent.process_peak_bytes) == (None, 0, 0, None)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_name_of_its_own_and_is_zero_where_there_was_none(kind: Kind) -> None:
    name = f"{kind}_bytes"

    assert getattr(memory(**{kind: 7}), name) == 7
    assert [getattr(memory(**{other: 7}), name) for other in get_args(Kind) if other != kind] == [0] * 6


def test_of_equal_peaks_the_last_is_named_for_it_is_in_the_table() -> None:
    peak = steps().peak

    assert peak is not None
    assert (peak.phase, peak.step) == ("optimizer", 2)
    assert peak in steps().shown_phases


def test_an_earlier_phase_that_is_higher_is_shown_too() -> None:
    memory = steps()
    higher = replace(memory.phases[0], peak_bytes=10**9)
    memory = replace(memory, phases=(higher, *memory.phases[1:]))

    assert memory.peak is higher
    assert memory.shown_phases == (higher, *memory.phases[3:])


def test_a_traceback_has_the_numbers_in_one_line() -> None:
    memory = steps()

    assert repr(memory) == (
        "<train_step on cpu: peak 718 MB in optimizer of step 2; parameters 155 MB, gradients 155 MB, optimizer 310 MB, "
        "activations 103 MB, temporary 98.0 MB>"
    )
    assert repr(memory.phases[0]) == (
        "<forward of step 1: peak 291 MB; parameters 155 MB, activations 103 MB, temporary 33.0 MB>"
    )
    assert repr(StepMemory(device="cpu", phases=(), largest_by_kind={})).startswith("<train_step on cpu: no operation")


@pytest.mark.parametrize(
    ("module", "pattern"),
    [
        ("model.layers.11.mlp.act_fn", "model.layers.*.mlp.act_fn"),
        ("encoder.block.0.layer.1", "encoder.block.*.layer.*"),
        ("model.conv1d.q8", "model.conv1d.q8"),
        ("", ""),
    ],
)
def test_layers_share_a_pattern(module: str, pattern: str) -> None:
    assert module_pattern(module) == pattern


def test_what_is_kept_outside_of_modules_has_words() -> None:
    assert KeptActivations(module="", bytes=1).place == "outside of modules"
