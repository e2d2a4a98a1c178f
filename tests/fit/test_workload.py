"""A workload on its way to another process."""

import json
from pathlib import Path

import pytest

from pytest_llmmem.fit.workload import Workload
from pytest_llmmem.models.steps.spec import TrainSpec


@pytest.mark.parametrize("train", [None, TrainSpec(batch_size=2, lora=4, lora_targets=("query",), autocast="bfloat16")])
def test_it_survives_its_json(train: TrainSpec | None) -> None:
    workload = Workload(folder=Path("model"), load="float16", train=train, steps=5)

    assert Workload.from_json(json.loads(json.dumps(workload.to_json()))) == workload


def test_the_shortest_training_reaches_the_step_that_has_the_state_of_the_optimizer() -> None:
    forwards = Workload(folder=Path("model"), load="default")
    training = Workload(folder=Path("model"), load="default", train=TrainSpec())

    assert (forwards.shortest().steps, training.shortest().steps) == (1, 2)
