"""What follows a load is recognized by what was alive as a budget was crossed, and by where; nothing is made up."""

import dataclasses

import pytest

from pytest_llmmem.core.children import FORKED, ChildrenRecord
from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.record_parts import AliveRecord
from pytest_llmmem.core.stacks import Frame
from pytest_llmmem.diagnosis import CheckpointFacts, Facts, LoadFacts, diagnose
from tests.diagnosis.sample_facts import COMPLETED, GB, MB, RAISED, assert_readable, id_of

OVER = Ending(kind="over_budget")


def stack(*places: str) -> tuple[Frame, ...]:
    """Frames of these files and functions, innermost first: ``"torch/serialization.py load"``."""
    return tuple(Frame(file, "1", function) for file, function in (place.split() for place in places))


def alive(*records: tuple[str, int | None, int]) -> tuple[AliveRecord, ...]:
    return tuple(AliveRecord(name=name, count=count, bytes=size) for name, count, size in records)


EVALUATING = stack("transformers/trainer.py evaluation_loop", "transformers/trainer.py evaluate")
COLLECTING = stack("transformers/trainer_pt_utils.py add") + EVALUATING
LOADING_DATA = stack("selectors.py register", "torch/utils/data/dataloader.py __next__")
CHILDREN = ChildrenRecord(bytes=160 * MB, count=5, forked=4, commands=(FORKED, "python -c … resource_tracker"))

KNOWN = {
    "evaluation-keeps-outputs": Facts(ending=OVER, stack=COLLECTING),
    "optimizer-resumed": Facts(ending=OVER, stack=stack("torch/optim/optimizer.py load_state_dict")),
    "dataloader-copies": Facts(ending=OVER, stack=LOADING_DATA, children=CHILDREN),
    "caches-kept": Facts(ending=OVER, alive=alive(("LlamaForCausalLM", 1, 60 * MB), ("DynamicCache", 21, 44 * MB))),
    "older-model-alive": Facts(ending=OVER, alive=alive(("LlamaForCausalLM", 2, 180 * MB), ("gradients", None, MB))),
    "tie-lost": Facts(ending=COMPLETED, load=LoadFacts(lost_ties=("lm_head.weight",))),
    "tie-stored-twice": Facts(ending=COMPLETED, load=LoadFacts(stored_twice=("lm_head.weight",))),
    "whole-model-on-disk": Facts(
        ending=COMPLETED, checkpoint=CheckpointFacts(weights_bytes=GB), load=LoadFacts(planned_disk_bytes=GB)
    ),
}


@pytest.mark.parametrize("expected", KNOWN)
def test_each_is_recognized(expected: str) -> None:
    found = diagnose(KNOWN[expected])

    assert found is not None
    assert found.id == expected
    assert_readable(found)


@pytest.mark.parametrize("name", [name for name, facts in KNOWN.items() if facts.ending == OVER])
def test_a_test_that_crossed_no_budget_is_not_explained_by_what_is_alive(name: str) -> None:
    assert diagnose(dataclasses.replace(KNOWN[name], ending=RAISED, error_type="ValueError")) is None


def test_an_evaluation_that_is_crossed_elsewhere_is_recognized_by_what_it_holds() -> None:
    forward = stack("torch/nn/modules/linear.py forward") + EVALUATING
    model = ("LlamaForCausalLM", 1, 50 * MB)

    kept = Facts(ending=OVER, stack=forward, alive=alive(("EvalLoopContainer", 1, 70 * MB), model))
    few = Facts(ending=OVER, stack=forward, alive=alive(model, ("EvalLoopContainer", 1, 2 * MB)))
    none = Facts(ending=OVER, stack=forward, alive=alive(model))

    assert id_of(kept) == "evaluation-keeps-outputs"
    assert (id_of(few), id_of(none)) == (None, None)


def test_a_state_that_trainer_reads_is_an_optimizers_and_any_other_is_a_state_dict() -> None:
    reading = stack("torch/serialization.py load")

    resuming = reading + stack("transformers/trainer.py _load_optimizer_and_scheduler")

    assert id_of(Facts(ending=OVER, stack=resuming)) == "optimizer-resumed"
    assert id_of(Facts(ending=OVER, stack=reading)) == "state-dict-copied"


@pytest.mark.parametrize(
    "children",
    [
        None,
        dataclasses.replace(CHILDREN, in_peak=False),
        dataclasses.replace(CHILDREN, forked=0),
        dataclasses.replace(CHILDREN, bytes=20 * MB),  # what torch takes in four forked processes
    ],
)
def test_workers_that_hold_little_or_hold_it_at_another_time_are_not_blamed(children: ChildrenRecord | None) -> None:
    assert id_of(Facts(ending=OVER, stack=LOADING_DATA, children=children)) is None


@pytest.mark.parametrize(
    "records",
    [
        (("EncoderDecoderCache", 1, 50 * MB), ("DynamicCache", 2, 50 * MB)),  # one generation
        (("LlamaForCausalLM", 1, GB), ("DynamicCache", 9, 50 * MB)),
    ],
)
def test_the_caches_of_one_generation_and_small_ones_are_not_blamed(records: tuple[tuple[str, int, int], ...]) -> None:
    assert id_of(Facts(ending=OVER, alive=alive(*records))) is None


def test_a_plan_that_left_something_in_memory_is_no_finding() -> None:
    facts = KNOWN["whole-model-on-disk"]

    assert diagnose(dataclasses.replace(facts, load=LoadFacts(planned_disk_bytes=GB // 2))) is None
    assert diagnose(dataclasses.replace(facts, load=LoadFacts(planned_disk_bytes=None))) is None
