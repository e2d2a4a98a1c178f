"""Load a model and run or train it: ``python -m pytest_llmmem.fit.program WORKLOAD OFFLOAD``.

It stops after its imports, after the load and at its end, says so on what was its standard output, and goes on when a line
comes on its standard input: so whoever started it can measure it from outside, and move it into a control group.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmmem import probes
from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.fit.workload import Workload
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.loading.load_model import load_model
from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.strategies import STRATEGIES

if TYPE_CHECKING:
    from pytest_llmmem.models.steps.spec import TrainSpec


_Steps = Callable[[Any], AbstractContextManager[Callable[[], object]]]
"""Prepares a loaded model, and gives the step to repeat. All that it needs has been imported."""


class _Unmeasured:
    """A load that is measured from outside."""

    peak = None


def main(workload: Workload, offload: Path) -> None:
    """Load, then repeat the step. ``offload`` is an empty folder, which the caller removes: this process may be killed."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no message

    def stop(at: str, **told: Any) -> None:
        messages.write(json.dumps({"at": at, **told}) + "\n")
        messages.flush()
        sys.stdin.readline()

    request = LoadRequest(
        checkpoint=read_checkpoint(workload.folder),
        offload_folder=offload,
        host_available_bytes=probes.host_memory().available_bytes,
    )
    steps = _training(workload.train) if workload.train else _inference()

    def begins() -> Any:
        # every import of the load has been done
        probes.reset_mark()
        stop("ready")
        return nullcontext(_Unmeasured())

    loaded = load_model(request, STRATEGIES[workload.load], begins)
    stop("loaded", seconds=loaded.seconds)
    probes.reset_mark()
    stop("running")
    took = []
    with steps(loaded.model) as step:
        for _ in range(workload.steps):
            began = time.perf_counter()
            step()
            took.append(time.perf_counter() - began)
    stop("done", seconds=took)


def _inference() -> _Steps:
    import torch

    @contextmanager
    def inference(model: Any) -> Iterator[Callable[[], object]]:
        with torch.inference_mode():
            yield lambda: model(**_inputs(model))

    return inference


def _training(train: "TrainSpec") -> _Steps:
    """The loop that ``train_step`` measures and ``llmmem estimate --train`` predicts, a step at a time."""
    from pytest_llmmem.models.steps.adapters import check_length, prepare, quietly
    from pytest_llmmem.models.steps.optimizers import make_optimizer
    from pytest_llmmem.models.steps.training import run_training

    once = replace(train, steps=1)

    @contextmanager
    def training(model: Any) -> Iterator[Callable[[], object]]:
        with quietly():
            check_length(model.config, once)
            prepared = prepare(model, once)
            optimizer = make_optimizer(once.optimizer, prepared.parameters(), device="cpu", are_fake=False)
            yield lambda: run_training(prepared, optimizer, once, device=str(model.device))

    return training


def _inputs(model: Any) -> dict[str, Any]:
    """Eight tokens, or what the model calls its dummy inputs."""
    import torch

    if model.main_input_name != "input_ids":
        return {name: tensor.to(model.device) for name, tensor in model.dummy_inputs.items()}
    return {"input_ids": torch.ones(1, 8, dtype=torch.long, device=model.device)}


if __name__ == "__main__":
    try:
        main(Workload.from_json(json.loads(sys.argv[1])), Path(sys.argv[2]))
    except LlmmemError as error:
        sys.exit(str(error))
