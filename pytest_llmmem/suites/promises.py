"""Ready-made checks of what a load has promised to its checkpoint: all of it, once, and no more with each use."""

import gc
import os
import shutil
from collections.abc import Callable
from typing import Any, Final

import pytest

from pytest_llmmem.core.printable import some_of
from pytest_llmmem.core.sizes import format_beside, format_size
from pytest_llmmem.measuring.blocks import memory_budget
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.loading.loaded import LoadedModel
from pytest_llmmem.models.loading.residency import trim
from pytest_llmmem.plugin.collect.loads import Load
from pytest_llmmem.plugin.worker.load import scratch_folder
from pytest_llmmem.suites.checks import (
    SLACK,
    forward_of,
    is_quantized,
    needs_tensors,
    promised_bytes,
    unreclaimable_bytes,
)

_SHARE: Final = 0.01
_SIZE_SLACK: Final = 10**6
"""Tolerance in addition to one percent of the weights: for padding, and for tensors that the class keeps in float32."""
_USED_AT_MOST: Final = 10**9
"""Bytes of weights that ``save`` writes and ``stays`` uses 20 times: a larger model would take longer than all other checks."""
_KEPT: Final = 16 * 10**6
"""Bytes that three more uses may leave: the allocator's own."""


def test_keys(loaded_model: LoadedModel) -> None:
    """Each weight is the checkpoint's: none missing, left over, of another shape, or with other numbers."""
    differences = loaded_model.differences
    if differences.unknown:
        pytest.skip(differences.unknown)
    if found := list(differences.sentences()):
        pytest.fail(f"weights {'; '.join(found)}", pytrace=False)


def test_size(loaded_model: LoadedModel) -> None:
    """The model holds the checkpoint's bytes in the dtype asked for, its ties once, and nothing besides."""
    needs_tensors(loaded_model)
    if loaded_model.promised_nbytes is None:
        pytest.skip(f"what {loaded_model.load!r} makes of this checkpoint is not predicted")
    promised, held = promised_bytes(loaded_model), loaded_model.nbytes
    if held > (1 + _SHARE) * promised + _SIZE_SLACK:
        allowed, holds, over = format_beside(promised, held)
        pytest.fail(
            f"the model holds {holds}, and its checkpoint is {allowed} in the dtype asked for: {over} more. {_why(loaded_model)}",
            pytrace=False,
        )


def test_save(loaded_model: LoadedModel, llm_load: Load, pytestconfig: pytest.Config) -> None:
    """``save_pretrained``, or safetensors' ``save_model``, needs no second copy and writes the weights once."""
    model, weights = loaded_model.model, loaded_model.checkpoint.weights_bytes
    if reason := _cannot_save(loaded_model, llm_load):
        pytest.skip(reason)
    with scratch_folder(pytestconfig) as folder:
        if (free := shutil.disk_usage(folder).free) < 2 * weights:
            pytest.skip(f"{folder} has {format_size(free)} left: set TMPDIR to a folder with room")
        with memory_budget(None, name="save") as spent:
            if hasattr(model, "save_pretrained"):
                model.save_pretrained(folder)
            else:
                from safetensors.torch import save_model

                save_model(model, str(folder / "model.safetensors"))
        saved = read_checkpoint(folder)
        promised = promised_bytes(loaded_model)
        if saved.weights_bytes > (1 + _SHARE) * promised + _SIZE_SLACK:
            allowed, wrote, _ = format_beside(promised, saved.weights_bytes)
            reason = _why(loaded_model)
            pytest.fail(f"saving wrote {wrote} of weights, and the checkpoint has {allowed}. {reason}", pytrace=False)
    if spent.peak is not None and spent.peak.peak_bytes > promised // 2 + SLACK:
        allowed, needed, _ = format_beside(promised // 2 + SLACK, spent.peak.peak_bytes)
        pytest.fail(
            f"saving needed {needed}, more than half a model and 200 MB ({allowed}): a second copy", pytrace=False
        )


def test_stays(loaded_model: LoadedModel) -> None:
    """Three forward passes, and three short generations, leave nothing behind."""
    if (weights := loaded_model.checkpoint.weights_bytes) > _USED_AT_MOST:
        pytest.skip(_too_large(weights))
    _keeps_nothing("forward passes", forward_of(loaded_model))
    model = loaded_model.model
    if getattr(model, "can_generate", bool)() and model.main_input_name == "input_ids":
        _keeps_nothing("generations", lambda: _generate(model))


def _generate(model: Any) -> None:
    import torch

    tokens = torch.ones(1, 8, dtype=torch.long, device=model.device)
    model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=4, min_new_tokens=4, do_sample=False)


def _keeps_nothing(what: str, use: Callable[[], None]) -> None:
    use()  # the first one imports, compiles and touches
    before = _settled_bytes()
    for _ in range(3):
        use()
    kept = _settled_bytes() - before
    if kept > _KEPT:
        pytest.fail(
            f"three {what} left {format_size(kept)} behind: something keeps what each of them makes, such as a cache of keys "
            "and values, or outputs in a list",
            pytrace=False,
        )


def _settled_bytes() -> int:
    """Unreclaimable memory, without what is garbage and what the C library keeps."""
    gc.collect()
    trim()
    return unreclaimable_bytes()


def _cannot_save(loaded: LoadedModel, chosen: Load) -> str:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "a model over ranks is written by the first rank alone, from the parts of all"
    weights = loaded.checkpoint.weights_bytes
    if is_quantized(chosen) or loaded.checkpoint.quantization or getattr(loaded.model, "hf_quantizer", None):
        return "what is quantized is not saved as it was loaded"
    if loaded.nbytes_on("disk") or loaded.nbytes_on("meta"):
        return "a part of the model is not in memory"
    if weights > _USED_AT_MOST:
        return _too_large(weights)
    if not hasattr(loaded.model, "save_pretrained") and not hasattr(loaded.model, "state_dict"):
        return f"{type(loaded.model).__name__} has no way to be saved that is known"
    return ""


def _too_large(weights: int) -> str:
    most, there = format_size(_USED_AT_MOST), format_size(weights)
    return f"for up to {most} of weights, and these are {there}: check a smaller model of this type"


def _why(loaded: LoadedModel) -> str:
    """Explain the bytes beyond the promise."""
    beside = loaded.beside_nbytes
    if beside > _SIZE_SLACK:
        return f"{format_size(beside)} are in attributes beside the parameters: a copy that the loader keeps"
    if loaded.lost_ties:
        names = some_of(loaded.lost_ties)
        return f"Not in the checkpoint: {names}: a tie was lost (call model.tie_weights()), or it was initialized anew"
    return f"The weights are {loaded.dtype}: pass dtype= where that is meant"
