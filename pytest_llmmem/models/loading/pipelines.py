"""Checkpoints of other libraries: pipelines of diffusers and sentence-transformers, adapters of PEFT."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.loading.arguments import nearest

PIPELINES: Final = frozenset({"diffusers", "sentence-transformers"})
"""Kinds of checkpoints that load as a pipeline."""

_ARGUMENTS: Final = frozenset({
    "cache_dir", "custom_pipeline", "custom_revision", "device_map", "disable_mmap", "dtype", "force_download",
    "load_connected_pipeline", "local_files_only", "low_cpu_mem_usage", "max_memory", "offload_folder", "offload_state_dict",
    "provider", "quantization_config", "revision", "token", "torch_dtype", "trust_remote_code", "use_onnx", "use_safetensors",
    "variant",
})  # fmt: skip
"""Arguments of ``DiffusionPipeline.from_pretrained``, which its signature does not have. A pipeline also takes its components."""


def pipeline_class(checkpoint: Checkpoint) -> Any:
    """The class with ``from_pretrained`` for the checkpoint. Raises ``CheckpointError`` where its library is not installed."""
    library = "diffusers" if checkpoint.kind == "diffusers" else "sentence_transformers"
    try:
        if checkpoint.kind == "diffusers":
            import diffusers

            return getattr(diffusers, checkpoint.model_type or "", diffusers.DiffusionPipeline)
        import sentence_transformers
    except ImportError as error:
        msg = f"--llm-model={checkpoint.source}: loading needs {library} ({error}): pip install {library.replace('_', '-')}"
        raise CheckpointError(msg) from error

    class SentenceTransformer(sentence_transformers.SentenceTransformer):  # type: ignore[misc]  # of a library without types
        """A class with ``from_pretrained``, like the others. The library takes the model's arguments in a dict of their own."""

        @classmethod
        def from_pretrained(cls, path: Path, *, device_map: str = "cpu", **arguments: Any) -> Any:
            return sentence_transformers.SentenceTransformer(str(path), device=device_map, model_kwargs=arguments)

    return SentenceTransformer


def check_arguments(pipeline: Any, keywords: Iterable[str]) -> None:
    """Raise ``CheckpointError`` for a misspelt argument: diffusers ignores unknown ones, except for a line in its log."""
    known = _ARGUMENTS | inspect.signature(pipeline.__init__).parameters.keys()
    for name in keywords:
        if name not in known and (close := nearest(name, known)):
            msg = f"{pipeline.__name__}.from_pretrained takes no argument {name!r}: did you mean {close!r}?"
            raise CheckpointError(msg)


def with_adapter(model: Any, adapter: Checkpoint, *, merged: bool = False) -> Any:
    """The model with an adapter, loaded by PEFT. ``merged`` adds it to the weights: mapped weights become private.

    Raises ``CheckpointError`` where PEFT is not installed.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        msg = f"{adapter.source}: loading an adapter needs peft ({error}): pip install peft"
        raise CheckpointError(msg) from error
    with_it = PeftModel.from_pretrained(model, str(adapter.path))
    return with_it.merge_and_unload() if merged else with_it


def adapter_call(base: str, adapter: Checkpoint, *, merged: bool = False) -> str:
    """The call as text, as a user would write it."""
    call = f"PeftModel.from_pretrained({base}, {str(adapter.path)!r})"
    return f"{call}.merge_and_unload()" if merged else call
