"""The storage tracker: records every tensor that an operation makes, real or fake, until its memory is released.

    with StorageTracker(model, optimizer) as tracker:
        ...                       # any training loop
    tracker.memory()

It records operations that torch dispatches in this thread and in autograd's. Memory that a library allocates for itself is in
no tensor, and is not recorded.
"""

import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pytest_llmmem.core.steps import Kind, StepMemory
from pytest_llmmem.models.loading.storage import plain_tensors
from pytest_llmmem.models.steps.phases import Phases, Stage, TrainingPhases
from pytest_llmmem.models.steps.storages import Storage, StorageLog
from pytest_llmmem.models.steps.torch_internals import (
    ASK_DEVICE,
    TorchDispatchMode,
    backward_node_number,
    device_of,
    forward_node_number,
    is_traceable_wrapper_subclass,
    resizes_reported,
    storage_key,
    tree_iter,
)
from pytest_llmmem.models.steps.weights_here import held_by_storage, part_here

_CARD_BLOCK = 512
"""Block size to which the allocator of a GPU rounds each request: CUDACachingAllocator's ``kMinBlockSize``."""


class StorageTracker(TorchDispatchMode):  # type: ignore[misc]  # torch has no types here
    """Records the storages of all tensors while it is entered.

    Modules and optimizers are detected when they are called. Those passed as arguments are known from the beginning, with the
    tensors that they already have.
    """

    def __init__(
        self,
        *watched: nn.Module | torch.optim.Optimizer,
        phases: Phases | None = None,
        block_bytes: int | None = None,
        on_stage: Callable[[Stage], None] | None = None,
    ) -> None:
        """``block_bytes`` rounds the sizes; ``None``: as the device does. ``on_stage`` is called when another stage has begun."""
        super().__init__()
        self._watched = watched
        self._phases = phases or TrainingPhases()
        self._block_bytes = block_bytes
        self._on_stage = on_stage
        self.stage = self._phases.now()
        """The stage of the current operations."""
        self._logs: dict[str, StorageLog] = {}
        self._alive: dict[int, tuple[weakref.ref[Any], Storage]] = {}
        self._names: dict[int, str] = {}
        self._path: list[str] = []
        self._module_of_node: dict[int, str] = {}
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
        self.last_op, self.last_module = func, self._module()
        result = self.run_operation(func, args, kwargs or {})
        for each in (result,) if isinstance(result, torch.Tensor) else tree_iter(result):
            if isinstance(each, torch.Tensor):
                self._note(each, func, args)
        return result

    @property
    def held_bytes(self) -> int:
        """Bytes of all existing storages."""
        return sum(storage.nbytes for _, storage in self._alive.values())

    def run_operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation and return its result."""
        return func(*args, **kwargs)

    def memory(self, name: str = "train_step", *, device: str | None = None) -> StepMemory:
        """The memory up to now, on the device with the most bytes; ``device`` replaces its name."""
        for log in self._logs.values():
            log.add_up()
        if not self._logs:
            return StepMemory(name=name, device=device or "cpu", phases=(), largest_by_kind={})
        elements, nbytes = (sum(each[place] for each in self._trainable.values()) for place in (0, 1))
        found = {
            place: log.memory(name=name, device=device or place, trainable=(elements, nbytes))
            for place, log in self._logs.items()
        }
        return max(found.values(), key=lambda each: each.peak_bytes)

    # stages ---------------------------------------------------------------------------------------------------------

    def _look_at_stage(self) -> None:
        stage = self._phases.now()
        if stage is not self.stage:
            self.stage = stage
            if self._on_stage is not None:
                self._on_stage(stage)

    def _module_begins(self, module: nn.Module, _args: Any) -> None:
        if not self._path:
            if id(module) not in self._names:
                self._watch(module)
            if self._phases.forward_begins():
                self._module_of_node.clear()
                for log in self._logs.values():
                    log.add_up()
            self._look_at_stage()
        self._path.append(self._names.get(id(module), ""))

    def _module_ends(self, _module: nn.Module, _args: Any, _result: Any) -> None:
        if self._path:
            self._path.pop()

    def _optimizer_begins(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        self._phases.optimizer_begins()
        self._look_at_stage()

    def _optimizer_ends(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        self._note_state(optimizer)
        self._phases.optimizer_ends()

    def _module(self) -> str:
        """The path of the operation's module; in a backward pass, the module of the forward operation."""
        if self._path:
            path = self._path[-1]
            self._module_of_node[forward_node_number()] = path
            return path
        number = backward_node_number()
        return "" if number is None else self._module_of_node.get(number, "")

    # kinds of storages -------------------------------------------------------------------------------------------------

    def _watch(self, model: nn.Module) -> None:
        held = held_by_storage(model)
        for _, tensor in plain_tensors(model):
            self._note(tensor, kind="parameters", nbytes=held[storage_key(tensor.untyped_storage())])
        for name, module in model.named_modules():
            self._names.setdefault(id(module), name or type(module).__name__)
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
        held: Counter[str] = Counter()
        seen: set[Storage] = set()
        for tensor in _tensors_of(cache):
            storage = self._note(tensor, kind="kv_cache")
            if storage is not None and storage not in seen:
                seen.add(storage)
                held[str(tensor.device)] += storage.nbytes
        for device, nbytes in held.items():
            self._logs[device].cache_holds(nbytes)

    def _note(
        self, tensor: Any, op: Any = None, args: Any = (), *, kind: Kind | None = None, nbytes: int | None = None
    ) -> Storage | None:
        """Record the storage of a tensor if it is new; ``None`` for a tensor without memory.

        ``nbytes`` replaces the storage's size, of which a rank's part of a mapped file uses little.
        """
        if is_traceable_wrapper_subclass(tensor):
            for name in tensor.__tensor_flatten__()[0]:
                if isinstance(part := getattr(tensor, name), torch.Tensor):  # a distributed tensor also names its mesh
                    self._note(part, op, args, kind=kind)
            return None
        try:
            memory = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):  # a sparse tensor
            return None
        key = storage_key(memory)
        known = self._alive.get(key)
        if known is not None and known[0]() is not None:
            if kind is not None:
                known[1].kind = kind
            return known[1]
        device = device_of(tensor)
        size = self._rounded(memory.nbytes() if nbytes is None else nbytes, device.type)
        if size == 0 or device.type == "meta":
            return None
        if kind is None:
            kind = "inputs" if _shares(key, args) else "temporary"
        storage = Storage(size, self.stage, op, self.last_module if op is not None else "", kind)
        self._appear(memory, storage, str(device))
        return storage

    def _appear(self, memory: Any, storage: Storage, device: str) -> None:
        log = self._logs.setdefault(device, StorageLog())
        log.appeared(storage)
        key = storage_key(memory)

        def gone(reference: weakref.ref[Any]) -> None:
            log.disappeared(storage, self._phases.now())
            if (now := self._alive.get(key)) is not None and now[0] is reference:
                del self._alive[key]

        self._alive[key] = weakref.ref(memory, gone), storage

    def _resized(self, memory: Any) -> None:
        """Record the release, and the return, of weights that FSDP gathers."""
        device = str(memory.device)
        _, before = self._alive.pop(storage_key(memory), (None, None))
        if before is not None:
            before.is_gathered = True
            self._logs[device].disappeared(before, self._phases.now())
        if memory.nbytes():
            size = self._rounded(memory.nbytes(), memory.device.type)
            again = Storage(size, self._phases.now(), self.last_op, self._module(), "temporary", is_gathered=True)
            self._appear(memory, again, device)

    def _rounded(self, nbytes: int, device_type: str) -> int:
        block = self._block_bytes or (_CARD_BLOCK if device_type == "cuda" else 1)
        return math.ceil(nbytes / block) * block


def _shares(key: int, args: Any) -> bool:
    """Whether an operation has that storage as an input: then it existed before, unrecorded."""
    for each in tree_iter(args):
        if isinstance(each, torch.Tensor):
            try:
                if storage_key(each.untyped_storage()) == key:
                    return True
            except (NotImplementedError, RuntimeError):
                continue
    return False


def _tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in a cache of keys and values of any class."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors_of(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors_of(each)
    elif type(value).__module__.startswith("transformers.") and hasattr(value, "__dict__"):
        yield from _tensors_of([each for name, each in vars(value).items() if "config" not in name])
