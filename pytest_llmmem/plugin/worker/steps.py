"""The steps of a test: run and measured in its process, and reported to the parent."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, assert_never

import pytest

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.measuring.blocks import memory_budget
from pytest_llmmem.measuring.connection import current
from pytest_llmmem.models.steps.spec import GenerateSpec, TrainSpec
from pytest_llmmem.plugin.collect.steps import request_of
from pytest_llmmem.plugin.state import settings_of
from pytest_llmmem.plugin.step_markers import LlmGenerate, LlmTrain
from pytest_llmmem.plugin.worker.messages import Stepped
from pytest_llmmem.plugin.worker.step_meter import measured_steps

if TYPE_CHECKING:
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
    from pytest_llmmem.models.loading.loaded import LoadedModel
    from pytest_llmmem.plugin.collect.loads import Load


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MeasuredStep(StepMemory):
    """The value of ``train_step`` and ``generate_step``: the measured and the predicted memory of the steps."""

    predict_memory: Callable[[], StepMemory]

    def predict(self) -> StepMemory:
        """The same steps on fake tensors, from the config alone; the report shows it beside what was measured."""
        __tracebackhide__ = True
        try:
            return self.predict_memory()
        except StepError as error:
            _fail(str(error))


def measure_step(
    loaded: "LoadedModel",
    load: "Load",
    step: TrainSpec | GenerateSpec,
    config: pytest.Config,
) -> MeasuredStep:
    """Run the steps with the loaded model. Fails the test, in a sentence, for what cannot be trained so."""
    __tracebackhide__ = True
    if isinstance(step, TrainSpec) and settings_of(config).scope != "function":
        _fail("train_step changes its model, which --llm-scope shares with other tests: leave --llm-scope out")
    try:
        memory = _run(loaded, step)
    except StepError as error:
        _fail(str(error))
    _report(memory)
    device: Literal["cpu", "cuda"] = "cuda" if memory.device.startswith("cuda") else "cpu"
    checkpoint = loaded.checkpoint

    def predict() -> StepMemory:
        from pytest_llmmem.models.steps import prediction

        predicted = prediction.predict(request_of(checkpoint, load, step, device=device))
        _report(dataclasses.replace(memory, predicted=predicted))
        return predicted

    fields = {field.name: getattr(memory, field.name) for field in dataclasses.fields(memory)}
    return MeasuredStep(**fields, predict_memory=predict)


def predict_step(checkpoint: "Checkpoint", load: "Load", item: pytest.Item) -> StepMemory:
    """The steps that the test's marker describes, by the rules of a card. Fails the test for what cannot be predicted."""
    __tracebackhide__ = True
    from pytest_llmmem.models.steps.prediction import predict

    marker = LlmTrain.of(item) or LlmGenerate.of(item)
    step = marker.step if marker else TrainSpec()
    try:
        memory = predict(request_of(checkpoint, load, step, device="cuda"))
    except StepError as error:
        _fail(str(error))
    _report(dataclasses.replace(memory, name="predicted_step"))
    return memory


def _fail(sentence: str) -> NoReturn:
    # this frame is not hidden: of a failure whose frames are all hidden, pytest prints that they are
    raise pytest.fail.Exception(sentence, pytrace=False) from None


def _run(loaded: "LoadedModel", step: TrainSpec | GenerateSpec) -> StepMemory:
    from pytest_llmmem.models.steps.adapters import check_length, prepare, quietly
    from pytest_llmmem.models.steps.first_use import use_kernels_once
    from pytest_llmmem.models.steps.generation import run_generation
    from pytest_llmmem.models.steps.optimizers import make_optimizer
    from pytest_llmmem.models.steps.phases import GenerationPhases
    from pytest_llmmem.models.steps.training import run_training

    model, device = loaded.model, str(loaded.model.device)
    with quietly():
        check_length(model.config, step)
        use_kernels_once(model.dtype)
        match step:
            case GenerateSpec():
                loaded.touch()
                with measured_steps(model.eval(), phases=GenerationPhases()) as meter:
                    run_generation(model, step, device=device)
                return meter.memory("generate_step")
            case TrainSpec():
                model = prepare(model, step)
                kind: Literal["cpu", "cuda"] = "cuda" if device.startswith("cuda") else "cpu"
                optimizer = make_optimizer(step.optimizer, model.parameters(), device=kind, are_fake=False)
                # weights that are still mapped would count for the step that uses them first
                loaded.touch()
                with measured_steps(model, optimizer) as meter:
                    run_training(model, optimizer, step, device=device)
                return meter.memory("train_step")
            case never:
                assert_never(never)


class TrainingBlock:
    """A ``training_memory`` block; once it has ended, it has the attributes of ``StepMemory``."""

    def __init__(self, watched: tuple[Any, ...]) -> None:
        from pytest_llmmem.models.steps.tracker import StorageTracker

        # one window: those of a train_step would close a memory_budget that the loop has open
        self._block = memory_budget(None, name="training")
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

    def __repr__(self) -> str:
        return "<training_memory, still open>" if self._memory is None else repr(self._memory)

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
