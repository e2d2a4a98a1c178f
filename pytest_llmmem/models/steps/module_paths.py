"""The module that an operation belongs to, by its path in the model."""

from torch import nn

from pytest_llmmem.models.steps.torch_internals import backward_node_number, forward_node_number, number_of_node


class ModulePaths:
    """Follows the modules that are being called, and remembers whose operations a backward pass repeats."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._called: list[str] = []
        self._of_node: dict[int | None, str] = {}

    def knows(self, module: nn.Module) -> bool:
        return id(module) in self._names

    def learn(self, model: nn.Module) -> None:
        """Note the paths of all modules of a model."""
        for name, module in model.named_modules():
            self._names.setdefault(id(module), name or type(module).__name__)

    def path_of(self, called: object) -> str:
        """The path of a module, or of the one that an autograd node belongs to; empty for anything else."""
        if isinstance(called, nn.Module):
            return self._names.get(id(called), type(called).__name__)
        return self._of_node.get(number_of_node(called), "")

    @property
    def is_outside(self) -> bool:
        """Whether no module is being called."""
        return not self._called

    def enter(self, module: nn.Module) -> None:
        self._called.append(self._names.get(id(module), ""))

    def leave(self) -> None:
        if self._called:
            self._called.pop()

    def forget_backward(self) -> None:
        """A new forward pass has begun: autograd's nodes are numbered anew."""
        self._of_node.clear()

    def now(self) -> str:
        """The path of the current operation; in a backward pass, that of the forward operation. Empty outside of modules."""
        if self._called:
            path = self._called[-1]
            # an operation without a node of its own comes after that of another one
            self._of_node.setdefault(forward_node_number(), path)
            return path
        number = backward_node_number()
        return "" if number is None else self._of_node.get(number, "")
