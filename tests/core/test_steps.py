"""Memory of steps as values: where the peak is, the phases that are shown, and short words for a traceback."""

from dataclasses import replace

import pytest

from pytest_llmmem.core.steps import KeptActivations, StepMemory, module_pattern
from tests.reports.records import steps


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
