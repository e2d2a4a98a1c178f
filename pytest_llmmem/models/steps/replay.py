"""Later steps of a prediction, replayed: the passes of a model take most of the time, and are the same in each step.

The first step is run. Of a later step only the optimizer is run, which makes its state in the first one; the events of the
forward and backward passes are repeated. If the first step leaves anything beside that state, it is no pattern for the others,
and they are run too.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from pytest_llmmem.models.steps.phases import Stage, TrainingPhases
from pytest_llmmem.models.steps.spec import TrainSpec
from pytest_llmmem.models.steps.storages import Event, Storage, StorageLog
from pytest_llmmem.models.steps.tracker import StorageTracker
from pytest_llmmem.models.steps.training import run_passes, run_training


def track_training(model: Any, optimizer: torch.optim.Optimizer, step: TrainSpec, tracker: StorageTracker) -> None:
    """Track the training steps of a model on fake tensors. The tracker must not be entered yet."""
    trained = [each for each in model.parameters() if each.requires_grad]
    # made before the tracker records: the gradients of a replayed step appear among its events
    spare = [[torch.empty_like(each, requires_grad=False) for each in trained] for _ in range(step.steps - 1)]
    with tracker:
        before, first_call = set(tracker.alive), list[int]()
        (log,) = tracker.logs
        begin = len(log.events)
        handle = model.register_forward_pre_hook(lambda *_: first_call.append(len(log.events)))
        run_passes(model, step, device="cpu")
        handle.remove()
        events, end = tuple(log.events[begin:]), tracker.phases.now()
        gradients = [None if each.grad is None else tracker.alive.find(each.grad.untyped_storage()) for each in trained]
        optimizer.step()
        optimizer.zero_grad()
        phases = tracker.phases
        if not isinstance(phases, TrainingPhases) or not _is_pattern(events, before, set(tracker.alive), gradients):
            run_training(model, optimizer, dataclasses.replace(step, steps=step.steps - 1), device="cpu")
            return
        while spare:
            copies = _repeat(log, phases, events, first_call=first_call[0] - begin, end=end)
            for parameter, tensor, gradient in zip(trained, spare.pop(), gradients, strict=True):
                if gradient is not None:
                    parameter.grad = tensor
                    tracker.follow(tensor.untyped_storage(), copies[gradient], log)
            del tensor
            optimizer.step()
            optimizer.zero_grad()


def _is_pattern(
    events: Sequence[Event], before: set[Storage], after: set[Storage], gradients: Sequence[Storage | None]
) -> bool:
    """Whether only the optimizer's state is left, nothing older was released, and each gradient has a storage of its own."""
    own = [each for each in gradients if each is not None]
    return (
        before <= after
        and all(each.kind == "optimizer" for each in after - before)
        and not any(each.storage in before for each in events)
        and len(set(own)) == len(own)
    )


def _repeat(
    log: StorageLog, phases: TrainingPhases, events: Sequence[Event], *, first_call: int, end: Stage
) -> dict[Storage, Storage]:
    """Add the events of another step's passes, up to the stage ``end`` of the first step; returns each storage's copy.

    Events before the first call of the model belong to the phase before: it lasts until the next one begins.
    """
    copies: dict[Storage, Storage] = {}

    def add(event: Event, stage: Stage) -> None:
        if event.is_new:
            copies[event.storage] = dataclasses.replace(event.storage, stage=stage, counted_as=None, block=None)
        log.events.append(Event(stage, copies[event.storage], event.is_new))

    now = phases.now()
    for each in events[:first_call]:
        add(each, now)
    log.add_up()

    def later(stage: Stage) -> Stage:
        return Stage(now.step + 1, stage.phase, now.number + 1 + stage.number)

    for each in events[first_call:]:
        add(each, later(each.stage))
    phases.resume(later(end))
    return copies
