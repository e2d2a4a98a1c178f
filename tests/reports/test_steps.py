"""Steps in the terminal: what is there, where the peak is, and what was predicted."""

from dataclasses import replace

from pytest_llmmem.reports.steps import step_table
from tests.reports.records import sample, steps


def test_each_phase_of_the_last_step_has_a_row_beside_its_prediction() -> None:
    head, columns, *rows = step_table(steps(), of="test_x.py::test_y")

    assert head == "train_step of test_x.py::test_y: step 2 of 2, tensors on cpu"
    assert columns.split() == [
        "phase", "tensors", "predicted", "process", "parameters", "gradients", "optimizer", "activations", "temporary",
    ]  # fmt: skip
    assert [row.split()[0] for row in rows[:3]] == ["forward", "backward", "optimizer"]
    assert rows[1].split()[2:8] == ["634", "MB", "634", "MB", "643", "MB"]
    assert len({len(line) for line in (columns, rows[2])}) == 1


def test_a_step_that_was_only_predicted_was_on_no_device() -> None:
    head, *_ = step_table(replace(steps(), name="predicted_step", device="cuda"), of="x")

    assert head == "predicted_step of x: step 2 of 2, predicted by the rules of cuda"


def test_the_highest_moment_and_what_is_kept_most_are_named() -> None:
    *_, highest, kept = step_table(steps(), of="x")

    assert highest == "  highest: 718 MB in optimizer 2, aten.div.Tensor"
    assert kept == "  kept for backward, most: LlamaForCausalLM 33.0 MB, model.layers.0.self_attn 5.00 MB"


def test_without_a_prediction_there_is_no_column_for_it() -> None:
    _, columns, *_ = step_table(steps(predicted=False), of="x")

    assert "predicted" not in columns


def test_steps_without_phases_have_no_lines() -> None:
    assert list(step_table(replace(steps(), phases=()), of="x")) == []


def test_steps_stand_below_the_table_of_tests() -> None:
    from pytest_llmmem.reports.terminal import table

    lines = list(table(sample()))

    assert any(line.startswith("train_step of ") for line in lines)
