"""A model that has been loaded, and what can be asked of it."""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.models import storage
from pytest_llmmem.models.checkpoint import Checkpoint


class LoadedModel:
    """What the fixture ``loaded_model`` gives: the model, and the truth about its memory. All sizes are bytes."""

    def __init__(self, model: Any, checkpoint: Checkpoint, *, seconds: float) -> None:
        self._model = model
        self.checkpoint = checkpoint
        """What the checkpoint's headers say."""
        self.seconds = seconds
        """How long the load took."""
        self.peak: Peak | None = None
        """What the load needed; ``None`` outside a worker, where nothing is measured."""
        self.mapped_after_load_bytes = self.mapped_nbytes

    @property
    def model(self) -> Any:
        """The model itself. Raises ``RuntimeError`` after ``release()``."""
        if self._model is None:
            msg = "this model was released: load it anew in another test, or do not call release() before using it"
            raise RuntimeError(msg)
        return self._model

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer, loaded when first asked for."""
        import transformers

        return transformers.AutoTokenizer.from_pretrained(self.checkpoint.path)

    @property
    def dtype(self) -> Any:
        """The ``torch.dtype`` of the model's floating-point weights."""
        return self.model.dtype

    @property
    def device_map(self) -> dict[str, Any]:
        """Module name to device; ``{"": device}`` when all of the model is on one."""
        return dict(getattr(self.model, "hf_device_map", None) or {"": str(self.model.device)})

    @property
    def nbytes(self) -> int:
        """Real storage in memory: tied weights once, quantised ones as they are stored, nothing for ``meta``."""
        return sum(size for device, size in storage.nbytes_by_device(self.model).items() if device != "meta")

    def nbytes_on(self, device: str) -> int:
        """Bytes on ``"cpu"``, ``"cuda:0"``, ``"meta"``, or ``"disk"`` (offloaded: on ``meta`` until they are used)."""
        sizes = storage.nbytes_by_device(self.model)
        on_disk = "disk" in self.device_map.values()
        if device == "disk":
            return sizes.get("meta", 0) if on_disk else 0
        if device == "meta":
            return 0 if on_disk else sizes.get("meta", 0)
        return sizes.get(device, 0)

    @property
    def mapped_nbytes(self) -> int | None:
        """Weights that are mapped and not resident yet: still to be paid for. ``None`` where that is unknown."""
        return storage.mapped_nbytes(self.checkpoint.path)

    @property
    def bits_per_parameter(self) -> float:
        """Stored bits per parameter of the checkpoint: 16 for a float16 load, a little over 4 for nf4."""
        return 8 * self.nbytes / self.checkpoint.parameters

    def touch(self) -> None:
        """Make every mapped weight resident, as a first forward would."""
        storage.touch(self.model)

    def release(self) -> None:
        """Let the model go and hand its memory back to the kernel."""
        self._model = None
        self.__dict__.pop("tokenizer", None)
        storage.trim()


def load_default(checkpoint: Checkpoint, measured: Callable[[], AbstractContextManager[Any]]) -> LoadedModel:
    """``from_pretrained`` of the architecture's own class and nothing else, as a user of the checkpoint would.

    ``measured`` is entered around the load alone; importing the library is not part of it.
    """
    loader = model_class(checkpoint)
    with measured() as spent:
        started = time.perf_counter()
        model = loader.from_pretrained(checkpoint.path)
        seconds = time.perf_counter() - started
    loaded = LoadedModel(model, checkpoint, seconds=seconds)
    loaded.peak = spent.peak
    return loaded


def model_class(checkpoint: Checkpoint) -> Any:
    """The class that the checkpoint's config names, or ``AutoModel``. Raises ``CheckpointError`` without transformers."""
    try:
        import transformers
    except ImportError as error:
        msg = f"--llm-model={checkpoint.source}: loading needs transformers ({error}): pip install 'pytest-llmmem[hf]'"
        raise CheckpointError(msg) from error
    for name in _architectures(checkpoint):
        if (found := getattr(transformers, name, None)) is not None:
            return found
    return transformers.AutoModel


def _architectures(checkpoint: Checkpoint) -> list[str]:
    config = checkpoint.path / "config.json"
    return (json.loads(config.read_text(encoding="utf-8")).get("architectures") or []) if config.exists() else []
