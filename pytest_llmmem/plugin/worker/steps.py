"""The steps of a test: run and measured in its process, and reported to the parent."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Self

import pytest

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.measuring.blocks import MemoryBudget, memory_budget
from pytest_llmmem.measuring.connection import current
from pytest_llmmem.models.steps.spec import GenerateSpec, TrainSpec
from pytest_llmmem.plugin.collect.steps import request_of
from pytest_llmmem.plugin.state import settings_of
from pytest_llmmem.plugin.step_markers import LlmGenerate, LlmTrain
from pytest_llmmem.plugin.worker.messages import Stepped

if TYPE_CHECKING:
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
    from pytest_llmmem.models.loading.loaded import LoadedModel
    from pytest_llmmem.models.steps.phases import Phases, Stage
    from pytest_llmmem.plugin.collect.loads import Load


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredStep(StepMemory):
    """The value of ``train_step`` and ``generate_step``: the measured and the predicted memory of the steps."""

    predict_memory: Callable[[], StepMemory]

    def predict(self) -> StepMemory:
        """The same steps on fake tensors, from the config alone; the report shows it beside what was measured."""
        __tracebackhide__ = True
        try:
            return self.predict_memory()
        except StepError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None


def measure_step(
    loaded: "LoadedModel",
    load: "Load",
    step: TrainSpec | GenerateSpec,
    config: pytest.Config,
) -> MeasuredStep:
    """Run the steps with the loaded model. Fails the test, in a sentence, for what cannot be trained so."""
    __tracebackhide__ = True
    if isinstance(step, TrainSpec) and settings_of(config).scope != "function":
        pytest.fail(
            "train_step changes its model, which --llm-scope shares with other tests: leave --llm-scope out",
            pytrace=False,
        )
    try:
        memory = _run(loaded, step)
    except StepError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    _report(memory)
    device: Literal["cpu", "cuda"] = "cuda" if memory.device.startswith("cuda") else "cpu"
    checkpoint = loaded.checkpoint

    def predict() -> StepMemory:
        from pytest_llmmem.models.steps.predictor import predict_here

        predicted = predict_here(request_of(checkpoint, load, step, device=device)).memory
        _report(dataclasses.replace(memory, predicted=predicted))
        return predicted

    fields = {field.name: getattr(memory, field.name) for field in dataclasses.fields(memory)}
    return MeasuredStep(**fields, predict_memory=predict)


def predict_step(checkpoint: "Checkpoint", load: "Load", item: pytest.Item) -> StepMemory:
    """The steps that the test's marker describes, by the rules of a card. Fails the test for what cannot be predicted."""
    __tracebackhide__ = True
    from pytest_llmmem.models.steps.predictor import predict_here

    marker = LlmTrain.of(item) or LlmGenerate.of(item)
    step = marker.step if marker else TrainSpec()
    try:
        memory = predict_here(request_of(checkpoint, load, step, device="cuda")).memory
    except StepError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    _report(dataclasses.replace(memory, name="predicted_step"))
    return memory


def _run(loaded: "LoadedModel", step: TrainSpec | GenerateSpec) -> StepMemory:
    from pytest_llmmem.models.steps.adapters import check_length, prepare, quietly
    from pytest_llmmem.models.steps.generation import run_generation
    from pytest_llmmem.models.steps.optimizers import make_optimizer
    from pytest_llmmem.models.steps.phases import GenerationPhases
    from pytest_llmmem.models.steps.training import run_training

    model, device = loaded.model, str(loaded.model.device)
    with quietly():
        check_length(model.config, step)
        if isinstance(step, GenerateSpec):
            loaded.touch()
            with _measured(model.eval(), phases=GenerationPhases()) as meter:
                run_generation(model, step, device=device)
            return meter.memory("generate_step")
        model = prepare(model, step)
        kind: Literal["cpu", "cuda"] = "cuda" if device.startswith("cuda") else "cpu"
        optimizer = make_optimizer(step.optimizer, model.parameters(), device=kind, are_fake=False)
        # weights that are still mapped would count for the step that uses them first
        loaded.touch()
        with _measured(model, optimizer) as meter:
            run_training(model, optimizer, step, device=device)
        return meter.memory("train_step")


@contextlib.contextmanager
def _measured(*watched: Any, phases: "Phases | None" = None) -> "Iterator[_Meter]":
    """The storages, and the process in a window for each phase, so that the high-water mark gives each peak."""
    from pytest_llmmem.models.steps.tracker import StorageTracker

    meter = _Meter()
    tracker = meter.tracker = StorageTracker(*watched, phases=phases, on_stage=meter.stage_begins)
    with tracker:
        meter.begin(tracker.held_bytes)
        try:
            yield meter
        finally:
            meter.end()


class _Meter:
    """The storages of steps, and the kernel's counters of the process."""

    tracker: Any

    def __init__(self) -> None:
        self._open: MemoryBudget | None = None
        self._key = (1, "")
        self._first_bytes: int | None = None
        self._held_bytes = 0
        self._peaks: dict[tuple[int, str], int] = {}

    def begin(self, held_bytes: int) -> None:
        """Begin the first phase, with ``held_bytes`` of tensors."""
        self._held_bytes = held_bytes
        self._enter(self.tracker.stage)

    def stage_begins(self, stage: "Stage") -> None:
        """The next one begins."""
        self.end()
        self._enter(stage)

    def end(self) -> None:
        """The last one is over."""
        if self._open is None:
            return
        self._open.__exit__(None, None, None)
        peak = self._open.peak
        self._open = None
        if peak is None:
            return
        if self._first_bytes is None:
            self._first_bytes = peak.baseline_bytes
        reached = self._held_bytes + peak.baseline_bytes - self._first_bytes + peak.peak_resident_bytes
        self._peaks[self._key] = max(reached, self._peaks.get(self._key, 0))

    def memory(self, name: str) -> StepMemory:
        """All that was measured."""
        found: StepMemory = self.tracker.memory(name)
        phases = tuple(
            dataclasses.replace(each, process_peak_bytes=self._peaks.get((each.step, each.phase)))
            for each in found.phases
        )
        return dataclasses.replace(found, phases=phases)

    def _enter(self, stage: "Stage") -> None:
        self._key = stage.step, stage.phase
        self._open = memory_budget(None, name=f"{stage.phase} {stage.step}").__enter__()


class TrainingBlock:
    """A ``training_memory`` block; once it has ended, it has the attributes of ``StepMemory``."""

    def __init__(self, watched: tuple[Any, ...]) -> None:
        from pytest_llmmem.models.steps.tracker import StorageTracker

        self._block: MemoryBudget = memory_budget(None, name="training")
        self._tracker = StorageTracker(*watched)
        self._memory: StepMemory | None = None

    @property
    def memory(self) -> StepMemory:
        """Memory of the block's steps. Raises ``RuntimeError`` inside of the block."""
        if self._memory is None:
            msg = "what a training_memory block took is known when it has ended: ask after the with statement"
            raise RuntimeError(msg)
        return self._memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)

    def __enter__(self) -> Self:
        self._block.__enter__()
        self._tracker.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        __tracebackhide__ = True
        self._tracker.__exit__(kind, error, traceback)
        self._block.__exit__(kind, error, traceback)
        self._memory = self._tracker.memory("training_memory")
        _report(self._memory)


def _report(memory: StepMemory) -> None:
    connection = current()
    if connection is not None:
        connection.send(Stepped(memory))
