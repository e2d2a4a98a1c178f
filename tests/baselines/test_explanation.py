"""Growth is explained by the kind of tensors and the modules in which most of it is."""

import pytest

from pytest_llmmem.baselines.compare import Comparison, compare
from pytest_llmmem.baselines.tolerance import parse_tolerance
from pytest_llmmem.baselines.values import Baseline
from tests.baselines.records import record, steps

TOLERANCE = parse_tolerance("5% + 1MB")
MLP, ATTENTION, HEAD = "model.layers.*.mlp.act_fn", "model.layers.*.self_attn", "lm_head"
BEFORE = steps({"parameters": 200, "activations": 100}, {MLP: 60, ATTENTION: 30, HEAD: 10})


def grown(after_kinds: dict[str, float], kept: dict[str, float], *, peak: float = 300) -> Comparison:
    before = Baseline.of([record(peak=300, steps=(BEFORE,), phases={"call": 300})])
    return compare(before, record(peak=peak, steps=(steps(after_kinds, kept),), phases={"call": peak}), TOLERANCE)


def test_activations_that_grew_are_named_with_their_share_and_modules() -> None:
    comparison = grown({"parameters": 200, "activations": 138}, {MLP: 98, ATTENTION: 30, HEAD: 10})

    assert comparison.verdict == "grew"
    assert comparison.sentence() == (
        "baseline is 300 MB, used 338 MB tensors of train_step: 38 MB more (+13%), most of it in activations of train_step, "
        f"+38%, in {MLP} (tolerance 5% + 1MB)"
    )


def test_the_growth_of_the_process_is_explained_by_the_kind_too() -> None:
    comparison = grown({"parameters": 200, "activations": 138}, {MLP: 98, ATTENTION: 30, HEAD: 10}, peak=350)

    assert f"used 350 MB unreclaimable: 50 MB more, most of it in activations of train_step, +38%, in {MLP}" in (
        comparison.sentence()
    )


def test_growth_outside_of_tensors_is_explained_by_its_phase() -> None:
    comparison = grown({"parameters": 200, "activations": 100}, {MLP: 60, ATTENTION: 30, HEAD: 10}, peak=400)

    assert "100 MB more, most of it in call (" in comparison.sentence()


def test_no_modules_are_named_where_the_growth_is_spread() -> None:
    comparison = grown({"parameters": 200, "activations": 130}, {MLP: 70, ATTENTION: 40, HEAD: 20})

    assert comparison.part == "activations of train_step, +30%"


def test_a_kind_that_grew_under_the_same_peak_is_found() -> None:
    comparison = grown({"parameters": 162, "activations": 138}, {MLP: 98, ATTENTION: 30, HEAD: 10})

    assert comparison.verdict == "grew"
    assert f"used 138 MB activations of train_step: 38 MB more (+38%), most of it in {MLP}" in comparison.sentence()


def test_a_kind_that_is_there_for_the_first_time_has_grown() -> None:
    comparison = grown({"parameters": 200, "activations": 100, "optimizer": 50}, {})

    assert "most of it in optimizer of train_step (" in comparison.sentence()


def test_kinds_that_held_have_no_row() -> None:
    comparison = grown({"parameters": 200, "activations": 138}, {MLP: 98, ATTENTION: 30, HEAD: 10})

    assert [row[5] for row in comparison.rows()] == [
        "tensors of train_step",
        "activations of train_step",
        "unreclaimable",
    ]
    assert not any("parameters" in line for line in comparison.details())


def test_steps_that_only_one_has_are_not_compared() -> None:
    before = Baseline.of([record(peak=300, steps=(BEFORE,))])
    after = record(peak=300, steps=(steps({"activations": 900}, name="generate_step"),))

    assert compare(before, after, TOLERANCE).verdict == "held"


@pytest.mark.parametrize("only", [("unreclaimable",), ("tensors",)])
def test_tensors_decide_unless_the_marker_names_other_measures(only: tuple[str, ...]) -> None:
    before = Baseline.of([record(peak=300, steps=(BEFORE,))])
    after = record(peak=300, steps=(steps({"parameters": 200, "activations": 138}),))

    assert (compare(before, after, TOLERANCE, only=only).verdict == "grew") == (only == ("tensors",))
