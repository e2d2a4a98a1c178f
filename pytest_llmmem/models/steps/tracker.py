"""The storage tracker: records every tensor that an operation makes, real or fake, until its memory is released.

    with StorageTracker(model, optimizer) as tracker:
        ...                       # any training loop
    tracker.memory()

It records operations that torch dispatches in this thread and in autograd's. Memory that a library allocates for itself is in
no tensor, and is not recorded.
"""

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pytest_llmmem.core.steps import Kind, StepMemory
from pytest_llmmem.models.loading.storage import plain_tensors
from pytest_llmmem.models.steps.caching_allocator import BLOCK_BYTES, CachingAllocator, rounded
from pytest_llmmem.models.steps.live_storages import LiveStorages
from pytest_llmmem.models.steps.module_paths import ModulePaths
from pytest_llmmem.models.steps.phases import Phases, Stage, TrainingPhases
from pytest_llmmem.models.steps.storages import Storage, StorageLog, memory_of
from pytest_llmmem.models.steps.tensors import Operation, storage_of, tensors_of
from pytest_llmmem.models.steps.torch_internals import (
    ASK_DEVICE,
    TorchDispatchMode,
    device_of,
    is_traceable_wrapper_subclass,
    resizes_reported,
    storage_key,
    tree_iter,
)
from pytest_llmmem.models.steps.weights_here import held_by_storage, part_here


class StorageTracker(TorchDispatchMode):  # type: ignore[misc]  # torch has no types here
    """Records the storages of all tensors while it is entered.

    Modules and optimizers are detected when they are called. Those passed as arguments are known from the beginning, with the
    tensors that they already have.
    """

    def __init__(
        self,
        *watched: nn.Module | torch.optim.Optimizer,
        phases: Phases | None = None,
        device: Literal["cpu", "cuda"] | None = None,
        on_stage: Callable[[Stage], None] | None = None,
    ) -> None:
        """``device`` is the one whose rules fake tensors follow; ``None``: their own.

        ``on_stage`` is called when another stage has begun.
        """
        super().__init__()
        self._watched = watched
        self.phases = phases or TrainingPhases()
        self._device = device
        self._on_stage = on_stage
        self.stage = self.phases.now()
        """The stage of the current operations."""
        self._logs: dict[str, StorageLog] = {}
        self.alive = LiveStorages()
        self.paths = ModulePaths()
        self._handles: list[Any] = []
        self._trainable: dict[int, tuple[int, int]] = {}
        self.last_op: Any = None
        """The last dispatched operation and its module, for the message of an error."""
        self.last_module = ""

    def __enter__(self) -> Self:
        super().__enter__()
        for each in self._watched:
            if isinstance(each, nn.Module):
                self._watch(each)
            else:
                self._note_state(each)
        self._handles += (
            register_module_forward_pre_hook(self._module_begins),
            register_module_forward_hook(self._module_ends, always_call=True),
            register_optimizer_step_pre_hook(self._optimizer_begins),
            register_optimizer_step_post_hook(self._optimizer_ends),
        )
        self._resizes = resizes_reported(self._resized)
        self._resizes.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._resizes.__exit__(None, None, None)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        super().__exit__(kind, error, traceback)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is ASK_DEVICE:
            return func(*args)
        self._look_at_stage()
        self.last_op, self.last_module = func, self.paths.now()
        result = self.run_operation(func, args, kwargs or {})
        operation = Operation(func, args)
        for each in (result,) if isinstance(result, torch.Tensor) else tree_iter(result):
            if isinstance(each, torch.Tensor):
                self._note(each, operation)
        return result

    @property
    def held_bytes(self) -> int:
        """Bytes of all existing storages."""
        return sum(storage.nbytes for storage in self.alive)

    @property
    def logs(self) -> tuple[StorageLog, ...]:
        """The log of each device."""
        return tuple(self._logs.values())

    def run_operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation and return its result."""
        return func(*args, **kwargs)

    def memory(self, name: str = "train_step") -> StepMemory:
        """The memory up to now, on the device with the most bytes."""
        elements, nbytes = (sum(each[place] for each in self._trainable.values()) for place in (0, 1))
        return memory_of(self._logs, name=name, device=self._device, trainable=(elements, nbytes))

    # stages ---------------------------------------------------------------------------------------------------------

    def _look_at_stage(self) -> None:
        stage = self.phases.now()
        if stage is not self.stage:
            self.stage = stage
            if self._on_stage is not None:
                self._on_stage(stage)

    def _module_begins(self, module: nn.Module, _args: Any) -> None:
        if self.paths.is_outside:
            if not self.paths.knows(module):
                self._watch(module)
            if self.phases.forward_begins():
                self.paths.forget_backward()
                for log in self._logs.values():
                    log.add_up()
            self._look_at_stage()
        self.paths.enter(module)

    def _module_ends(self, _module: nn.Module, _args: Any, _result: Any) -> None:
        self.paths.leave()

    def _optimizer_begins(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        self.phases.optimizer_begins()
        self._look_at_stage()

    def _optimizer_ends(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        self._note_state(optimizer)
        self.phases.optimizer_ends()

    # kinds of storages -------------------------------------------------------------------------------------------------

    def _watch(self, model: nn.Module) -> None:
        held = held_by_storage(model)
        for _, tensor in plain_tensors(model):
            memory = storage_of(tensor)
            self._note(tensor, kind="parameters", nbytes=None if memory is None else held[storage_key(memory)])
        self.paths.learn(model)
        for parameter in model.parameters():
            if parameter.grad is not None:
                self._note(parameter.grad, kind="gradients")
            if parameter.requires_grad:
                part = part_here(parameter)
                self._trainable[id(parameter)] = part.numel(), part.nbytes
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._note_gradient))
        self._handles += (
            model.register_forward_pre_hook(self._note_inputs, with_kwargs=True),
            model.register_forward_hook(self._note_cache),
        )

    def _note_gradient(self, parameter: torch.Tensor) -> None:
        self._note(parameter.grad, kind="gradients")

    def _note_state(self, optimizer: torch.optim.Optimizer) -> None:
        for state in optimizer.state.values():
            for each in tree_iter(state):
                if isinstance(each, torch.Tensor):
                    self._note(each, kind="optimizer")

    def _note_inputs(self, _model: nn.Module, args: Any, kwargs: Any) -> None:
        for each in tree_iter((args, kwargs)):
            if isinstance(each, torch.Tensor):
                storage = self._note(each)
                if storage is not None and storage.kind == "temporary":
                    storage.kind = "inputs"

    def _note_cache(self, _model: nn.Module, _args: Any, result: Any) -> None:
        cache = getattr(result, "past_key_values", None)
        if cache is None:
            return
        held: dict[str, set[Storage]] = {}
        for tensor in tensors_of(cache):
            if (storage := self._note(tensor, kind="kv_cache")) is not None:
                held.setdefault(str(tensor.device), set()).add(storage)
        for device, storages in held.items():
            self._logs[device].cache_holds(sum(each.nbytes for each in storages))

    def _note(
        self, tensor: Any, operation: Operation | None = None, *, kind: Kind | None = None, nbytes: int | None = None
    ) -> Storage | None:
        """Record the storage of a tensor if it is new; ``None`` for a tensor without memory.

        ``nbytes`` replaces the storage's size, of which a rank's part of a mapped file uses little.
        """
        if is_traceable_wrapper_subclass(tensor):
            for name in tensor.__tensor_flatten__()[0]:
                if isinstance(part := getattr(tensor, name), torch.Tensor):  # a distributed tensor also names its mesh
                    self._note(part, operation, kind=kind)
            return None
        memory = storage_of(tensor)
        if memory is None:
            return None
        if (known := self.alive.find(memory)) is not None:
            known.kind = kind or known.kind
            return known
        if kind is None:
            kind = "inputs" if operation and operation.has_input(memory) else "temporary"
        storage = Storage(0, self.stage, operation and operation.func, self.last_module if operation else "", kind)
        return self._record(memory, device_of(tensor), storage, nbytes)

    def _record(self, memory: Any, device: torch.device, storage: Storage, nbytes: int | None = None) -> Storage | None:
        held = memory.nbytes() if nbytes is None else nbytes
        storage.nbytes = rounded(held, BLOCK_BYTES) if (self._device or device.type) == "cuda" else held
        if storage.nbytes == 0 or device.type == "meta":
            return None
        if (log := self._logs.get(str(device))) is None:
            log = self._logs[str(device)] = StorageLog(CachingAllocator() if self._device == "cuda" else None)
        log.appeared(storage)
        self.follow(memory, storage, log)
        return storage

    def follow(self, memory: Any, storage: Storage, log: StorageLog) -> None:
        """Record in the log when torch's storage is released."""
        self.alive.add(memory, storage, lambda: log.disappeared(storage, self.phases.now()))

    def _resized(self, memory: Any) -> None:
        """Record the release, and the return, of weights that FSDP gathers."""
        if (before := self.alive.pop(memory)) is not None:
            before.is_gathered = True
            self._logs[str(memory.device)].disappeared(before, self.phases.now())
        again = Storage(0, self.phases.now(), self.last_op, self.paths.now(), "temporary", is_gathered=True)
        self._record(memory, memory.device, again)
