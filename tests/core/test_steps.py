"""Memory of several steps: the highest moment of all, and the most of each kind."""

from typing import get_args

import pytest

from pytest_llmmem.core.steps import KINDS, Kind, StepMemory, StepPhase


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


def test_a_measurement_without_a_step_has_no_peak() -> None:
    spent = memory()

    assert (spent.peak, spent.peak_bytes, spent.steps, spent.process_peak_bytes) == (None, 0, 0, None)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_name_of_its_own_and_is_zero_where_there_was_none(kind: Kind) -> None:
    name = f"{kind}_bytes"

    assert getattr(memory(**{kind: 7}), name) == 7
    assert [getattr(memory(**{other: 7}), name) for other in get_args(Kind) if other != kind] == [0] * 6
