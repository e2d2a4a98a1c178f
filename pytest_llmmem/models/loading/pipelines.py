"""Checkpoints of other libraries: pipelines of diffusers and sentence-transformers, adapters of PEFT."""

from pathlib import Path
from typing import Any, Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint

PIPELINES: Final = frozenset({"diffusers", "sentence-transformers"})
"""Kinds of checkpoints that load as a pipeline."""


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
