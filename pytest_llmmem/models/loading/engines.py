"""Checkpoints that an inference engine loads by itself: ONNX files by onnxruntime, GGUF files by llama.cpp.

The weights are in the engine's own memory, where no tensor of torch shows them: a load has a peak, and no ``nbytes``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint

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
            if unknown := options.keys() - {"sess_options", "provider_options"}:  # it ignores what it does not know
                msg = f"onnxruntime.InferenceSession takes no argument {min(unknown)!r}: leave it out"
                raise CheckpointError(msg)
            return onnxruntime.InferenceSession(str(path), providers=list(providers or [found[device]]), **options)

    return InferenceSession


def load_llama_cpp(request: "LoadRequest") -> Any:
    """Load a GGUF file with llama-cpp-python. Raises ``CheckpointError`` for another format, and without the library."""
    try:
        import llama_cpp
    except ImportError as error:
        raise _missing(request.checkpoint, "llama-cpp-python", error) from error
    return llama_cpp.Llama(model_path=str(gguf_file(request.checkpoint)), verbose=False, **request.options)


def llama_cpp_call(request: "LoadRequest") -> str:
    """The call as text."""
    given = (f", {name}={value!r}" for name, value in request.options.items())
    return f"Llama(model_path={str(gguf_file(request.checkpoint))!r}, verbose=False{''.join(given)})"


def gguf_file(checkpoint: Checkpoint) -> Path:
    """The file that llama.cpp opens: of several, the first. Raises ``CheckpointError`` for another format."""
    if checkpoint.format != "gguf":
        msg = f"--llm-model={checkpoint.source}: llama.cpp loads GGUF, and this is {checkpoint.format}: load it with 'default'"
        raise CheckpointError(msg)
    return checkpoint.shards[0].path


def _missing(checkpoint: Checkpoint, library: str, error: ImportError) -> CheckpointError:
    msg = f"--llm-model={checkpoint.source}: loading needs {library} ({error}): pip install {library}"
    return CheckpointError(msg)
