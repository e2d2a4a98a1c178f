"""One way to load a checkpoint: built in, of a team's hook, or a function of the user's own."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.tensor_file import FileFormat
from pytest_llmmem.models.loading import own_loader
from pytest_llmmem.models.loading.request import LoadRequest

_PACKAGES: Final = {"llama_cpp": "llama-cpp-python", "sentence_transformers": "sentence-transformers"}
"""Names for pip, where they are not the module's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One way to load."""

    name: str
    """The name for ``--llm-load`` and ``@pytest.mark.llm_load``."""

    summary: str
    """One line for tables."""

    load: Callable[[LoadRequest], Any]
    """Loads and returns the model."""

    call: Callable[[LoadRequest], str] | None = None
    """The equivalent user code as text. ``None``: the ``from_pretrained`` call that was made, or ``load`` itself."""

    dtype: str | None = None
    """The dtype that it casts weights to, such as ``"float16"``. ``None``: the caller's, or else the library's choice."""

    bits: int | None = None
    """Bits of each weight that it quantizes. ``None``: it quantizes nothing."""

    libraries: tuple[str, ...] = ()
    """Libraries imported before the load, so that their import does not count as its memory."""

    unavailable: Callable[[Checkpoint], str | None] = lambda _: None
    """The reason that it cannot load a checkpoint here, such as a library that is not installed; ``None`` if it can.

    Imports nothing that initializes an accelerator.
    """

    offered: bool = True
    """Whether ``llmmem try`` tries it."""

    only_format: FileFormat | None = None
    """The only format that it loads: ``llmmem try`` does not try it on others. ``None``: any format."""

    merges_adapter: bool = False
    """Whether it merges an adapter's weights into the base model's."""
    needs_ranks: bool = False
    """Whether it spreads the model over several processes: ``--llm-ranks`` sets their number."""


def needs(*libraries: str) -> Callable[[Checkpoint], str | None]:
    """A function for ``Strategy.unavailable``: names what is not installed of these and of the checkpoint's own libraries."""
    return lambda checkpoint: absent(*_libraries_of(checkpoint), *libraries)


def absent(*modules: str) -> str | None:
    """Name the modules that are not installed; ``None`` if all are."""
    # by module: onnxruntime may come from onnxruntime-gpu
    missing = [_PACKAGES.get(name, name) for name in modules if importlib.util.find_spec(name) is None]
    return f"needs {' and '.join(missing)}: pip install {' '.join(missing)}" if missing else None


def _libraries_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The modules that ``LoadRequest.from_pretrained`` needs for the checkpoint."""
    adapter = () if checkpoint.adapter is None else ("peft",)
    match checkpoint.kind, checkpoint.format:
        case _, "onnx":
            return ("onnxruntime",)
        case "file", "gguf":
            return ("transformers", "gguf", *adapter)
        case "diffusers" | "sentence-transformers" as library, _:
            return (library.replace("-", "_"),)
        case "file", _:
            return ()  # no library loads it, and LoadRequest explains how to
        case _:
            return ("transformers", *adapter)


def loader_strategy(function: own_loader.Loader, options: Mapping[str, Any] | None = None) -> Strategy:
    """A strategy that calls a function of the user's own; ``options`` are its further arguments."""
    arguments = options or {}

    def load(request: LoadRequest) -> Any:
        __tracebackhide__ = True
        return own_loader.call_loader(function, request, arguments)

    return Strategy(
        name=own_loader.name_of(function),
        summary="a loader of your own",
        load=load,
        call=lambda request: own_loader.written_call(function, request, arguments),
    )
