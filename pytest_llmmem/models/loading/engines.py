"""Checkpoints that an inference engine loads by itself: ONNX files by onnxruntime, GGUF files by llama.cpp.

The weights are in the engine's own memory, where no tensor of torch shows them: a load has a peak, and no ``nbytes``.
"""

import inspect
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.loading.arguments import nearest

if TYPE_CHECKING:
    from pytest_llmmem.models.loading.request import LoadRequest


def onnx_class(checkpoint: Checkpoint) -> Any:
    """A class with ``from_pretrained`` for an ONNX file. Raises ``CheckpointError`` without onnxruntime."""
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing(checkpoint, "onnxruntime", error) from error

    class InferenceSession:
        """A class with ``from_pretrained``, like the others."""

        @staticmethod
        def from_pretrained(
            path: Path, *, device_map: str = "cpu", providers: Sequence[Any] | None = None, **options: Any
        ) -> Any:
            device, _, number = device_map.partition(":")
            found = {
                "cpu": "CPUExecutionProvider",
                "cuda": ("CUDAExecutionProvider", {"device_id": int(number or 0)}),
            }
            if providers is None and device not in found:
                msg = f"onnxruntime has no provider for {device_map!r} here: pass providers=[...]"
                raise CheckpointError(msg)
            _refuse_unknown("onnxruntime.InferenceSession", options, {"sess_options", "provider_options", "providers"})
            return onnxruntime.InferenceSession(str(path), providers=list(providers or [found[device]]), **options)

    return InferenceSession


def load_llama_cpp(request: "LoadRequest") -> Any:
    """Load a GGUF file with llama-cpp-python.

    Raises ``CheckpointError`` for another format, for an argument that is not known, and without the library.
    """
    try:
        import llama_cpp
    except ImportError as error:
        raise _missing(request.checkpoint, "llama-cpp-python", error) from error
    arguments = _llama_cpp_arguments(request)
    _refuse_unknown("llama_cpp.Llama", arguments, inspect.signature(llama_cpp.Llama.__init__).parameters)
    if request.device is not None and "n_gpu_layers" not in arguments:
        msg = f"--llm-device={request.device}: llama.cpp places layers by llm_load('llama_cpp', n_gpu_layers=-1): pass that"
        raise CheckpointError(msg)
    return llama_cpp.Llama(**arguments)


def llama_cpp_call(request: "LoadRequest") -> str:
    """The call as text."""
    return f"Llama({', '.join(f'{name}={value!r}' for name, value in _llama_cpp_arguments(request).items())})"


def _llama_cpp_arguments(request: "LoadRequest") -> dict[str, Any]:
    given = {name: value for name, value in request.options.items() if name != "trust_remote_code"}
    return {"model_path": str(gguf_file(request.checkpoint)), "verbose": False} | given


def gguf_file(checkpoint: Checkpoint) -> Path:
    """The file that llama.cpp opens: of several, the first. Raises ``CheckpointError`` for another format."""
    if checkpoint.format != "gguf":
        msg = f"--llm-model={checkpoint.source}: llama.cpp loads GGUF, and this is {checkpoint.format}: load it with 'default'"
        raise CheckpointError(msg)
    return checkpoint.shards[0].path


def _refuse_unknown(function: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise ``CheckpointError`` for an argument that the function would ignore."""
    for name in given:
        if name not in known:
            close = nearest(name, known)
            msg = f"{function} takes no argument {name!r}: {f'did you mean {close!r}?' if close else 'leave it out'}"
            raise CheckpointError(msg)


def _missing(checkpoint: Checkpoint, library: str, error: ImportError) -> CheckpointError:
    msg = f"--llm-model={checkpoint.source}: loading needs {library} ({error}): pip install {library}"
    return CheckpointError(msg)
